// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/companion.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <sys/stat.h>

#include <cstdlib>
#include <cstring>

#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kNameBytes = 64;
// A process group destroys its backends when it ends: what stands there for a kind of device that
// nothing is moved on ends with it.
constexpr auto kPlace = c10::DeviceType::Meta;

class Companion final : public c10d::Backend {
 public:
  Companion(int rank, int size, std::unique_ptr<SharedQueues> shared)
      : c10d::Backend(rank, size), queues(std::move(shared)) {}
  const std::string getBackendName() const override { return "halcyon"; }

  const std::unique_ptr<SharedQueues> queues;
};

bool is_wanted() {
  const char* const chosen = std::getenv("HALCYON_SHARED_MEMORY");
  return !chosen || std::strcmp(chosen, "0") != 0;
}

// Ranks look after one another by their process numbers, which mean the same in one namespace only.
int64_t process_namespace() {
  struct stat about {};
  return stat("/proc/self/ns/pid", &about) == 0 ? static_cast<int64_t>(about.st_ino) : 0;
}

// Rank 0 makes the memory and tells its name; it is used where every rank can open it.
std::unique_ptr<SharedQueues> queues_over(const Group& group, const std::string& operation) {
  const auto me = group.rank(), ranks = group.size();
  std::unique_ptr<SharedSegment> segment;
  // all tell all, so that a rank that is missing is named by each
  std::vector<at::Tensor> names;
  names.reserve(ranks);
  for (int64_t r = 0; r < ranks; ++r) names.push_back(at::zeros({kNameBytes}, at::kByte));
  const auto numbers = process_namespace();
  auto theirs = numbers;
  {
    if (me == 0) {
      auto* const own = static_cast<char*>(names[0].mutable_data_ptr());
      if (is_wanted()) segment = SharedSegment::create(ranks);
      if (segment) std::strncpy(own, segment->name().c_str(), kNameBytes - sizeof numbers - 1);
      std::memcpy(own + kNameBytes - sizeof numbers, &numbers, sizeof numbers);
    }
    Exchange exchange(group, operation, kNameTag, /*counted=*/false);
    for (int64_t r = 0; r < ranks; ++r) {
      if (r != me) exchange.receive(r, names[r]);
    }
    for (int64_t r = 0; r < ranks; ++r) {
      if (r != me) exchange.send(r, names[me]);
    }
    exchange.post();
    exchange.wait();
  }
  auto* const text = static_cast<char*>(names[0].mutable_data_ptr());
  std::memcpy(&theirs, text + kNameBytes - sizeof theirs, sizeof theirs);
  text[kNameBytes - sizeof theirs - 1] = 0;
  const bool same = theirs == numbers && numbers != 0;
  if (!same) segment.reset();
  if (me != 0 && text[0] && same && is_wanted()) segment = SharedSegment::open(text, ranks);

  const auto mine = at::full({1}, segment ? 1 : 0, at::kLong);
  std::vector<at::Tensor> answers;
  Exchange exchange(group, operation, kAnswerTag, /*counted=*/false);
  for (int64_t r = 0; r < ranks; ++r) {
    answers.push_back(r == me ? mine : at::zeros({1}, at::kLong));
    if (r != me) exchange.receive(r, answers.back());
  }
  std::unique_ptr<SharedQueues> queues;
  for (int64_t r = 0; r < ranks; ++r) {
    if (r != me) exchange.send(r, mine);
  }
  auto* const made = segment.get();
  if (segment) queues = std::make_unique<SharedQueues>(std::move(segment), me, ranks);
  exchange.post();
  exchange.wait();
  if (me == 0 && made) made->remove();
  for (const auto& answer : answers) {
    if (answer.item<int64_t>() == 0) return nullptr;
  }
  return queues;
}

}  // namespace

SharedQueues* queues_of(const Group& group) {
  if (!group.has_backend(kPlace)) return nullptr;
  const auto* const companion = dynamic_cast<Companion*>(group.backend(kPlace).get());
  return companion ? companion->queues.get() : nullptr;
}

void meet(const Group& group, const std::string& operation) {
  if (group.size() == 1 || group.has_backend(kPlace) || !group.has_backend(c10::kCPU)) return;
  if (group.backend(c10::kCPU)->getBackendName() != "gloo") return;
  auto companion =
      c10::make_intrusive<Companion>(static_cast<int>(group.rank()), static_cast<int>(group.size()),
                                     queues_over(group, operation));
  group.process_group()->setBackend(kPlace, c10d::ProcessGroup::BackendType::CUSTOM, companion);
}

}  // namespace halcyon::parallel
