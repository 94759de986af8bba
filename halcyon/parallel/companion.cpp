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

// What every rank tells: all tell all, so that a rank that is missing is named by each.
std::vector<at::Tensor> told(const Group& group, const std::string& operation, int64_t tag,
                             const at::Tensor& mine) {
  std::vector<at::Tensor> all;
  Exchange exchange(group, operation, tag, /*counted=*/false);
  for (int64_t r = 0; r < group.size(); ++r) {
    all.push_back(r == group.rank() ? mine : at::zeros_like(mine));
    if (r == group.rank()) continue;
    exchange.receive(r, all.back());
    exchange.send(r, mine);
  }
  exchange.post();
  exchange.wait();
  return all;
}

// Rank 0 makes the memory and tells its name; it is used where every rank can open it.
std::unique_ptr<SharedQueues> queues_over(const Group& group, const std::string& operation) {
  const auto me = group.rank(), ranks = group.size();
  std::unique_ptr<SharedSegment> segment;
  const auto numbers = process_namespace();
  auto theirs = numbers;
  const auto name = at::zeros({kNameBytes}, at::kByte);
  if (me == 0) {
    auto* const own = static_cast<char*>(name.mutable_data_ptr());
    if (is_wanted()) segment = SharedSegment::create(ranks);
    if (segment) std::strncpy(own, segment->name().c_str(), kNameBytes - sizeof numbers - 1);
    std::memcpy(own + kNameBytes - sizeof numbers, &numbers, sizeof numbers);
  }
  const auto of_rank_0 = told(group, operation, kNameTag, name)[0];
  auto* const text = static_cast<char*>(of_rank_0.mutable_data_ptr());
  std::memcpy(&theirs, text + kNameBytes - sizeof theirs, sizeof theirs);
  text[kNameBytes - sizeof theirs - 1] = 0;
  const bool same = theirs == numbers && numbers != 0;
  if (!same) segment.reset();
  if (me != 0 && text[0] && same && is_wanted()) segment = SharedSegment::open(text, ranks);

  const auto mine = at::full({1}, segment ? 1 : 0, at::kLong);
  std::unique_ptr<SharedQueues> queues;
  auto* const made = segment.get();
  // before the answer: whoever has it may look after this rank's process
  if (segment) queues = std::make_unique<SharedQueues>(std::move(segment), me, ranks);
  const auto answers = told(group, operation, kAnswerTag, mine);
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
