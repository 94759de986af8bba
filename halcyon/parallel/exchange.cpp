// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/exchange.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <atomic>
#include <thread>

#include "halcyon/base/error.h"

namespace halcyon::parallel {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int64_t> sent_messages{0}, sent_bytes{0};

void count(const at::Tensor& tensor) {
  sent_messages.fetch_add(1, std::memory_order_relaxed);
  sent_bytes.fetch_add(static_cast<int64_t>(tensor.nbytes()), std::memory_order_relaxed);
}

double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

// The first line of what a backend says, without the place in its sources.
std::string first_line(const std::string& what) {
  auto line = what.substr(0, what.find('\n'));
  if (const auto place = line.find("] "); line.starts_with('[') && place != std::string::npos) {
    line = line.substr(place + 2);
  }
  return line.substr(0, 200);
}

}  // namespace

Traffic traffic() {
  return {sent_messages.load(), sent_bytes.load()};
}

bool has_cores_to_overlap(const Group& group) {
  static const int64_t cores = std::thread::hardware_concurrency();
  return cores >= 2 * group.size();  // all of them may be on this machine
}

Exchange::Exchange(Group group, std::string operation, int64_t tag)
    : group_(std::move(group)), operation_(std::move(operation)), tag_(tag) {}

Exchange::~Exchange() {
  abandon();
}

void Exchange::receive(int64_t peer, at::Tensor into) {
  HALCYON_ASSERT(into.is_non_overlapping_and_dense());
  if (into.numel() > 0) receives_.push_back({peer, std::move(into)});
}

void Exchange::send(int64_t peer, at::Tensor from) {
  HALCYON_ASSERT(from.is_non_overlapping_and_dense());
  if (from.numel() > 0) sends_.push_back({peer, std::move(from)});
}

void Exchange::post() {
  begun_ = Clock::now();
  if (receives_.empty() && sends_.empty()) return;
  const auto& any = receives_.empty() ? sends_.front().tensor : receives_.front().tensor;
  const auto backend = group_.backend(any.device().type());
  // NCCL takes what belongs together as one launch; between the two ends it matches by order
  const bool together = backend->supportsCoalescing();
  int64_t peer = -1;
  try {
    if (together) backend->startCoalescing();
    const auto run = [&](std::vector<Message>& messages, auto member) {
      for (auto& message : messages) {
        peer = message.peer;
        std::vector<at::Tensor> one{message.tensor};
        auto work = (*backend.*member)(one, static_cast<int>(peer), static_cast<int>(tag_));
        if (!together) pending_.push_back({peer, std::move(work)});
      }
    };
    run(receives_, &c10d::Backend::recv);
    run(sends_, &c10d::Backend::send);
    if (together) pending_.push_back({peer, backend->endCoalescing()});
  } catch (const std::exception& e) {
    fail(peer, e.what());
  }
  for (const auto& message : sends_) count(message.tensor);
}

void Exchange::wait() {
  // receives first: theirs are the errors that name who is missing
  for (auto& [peer, work] : pending_) {
    bool done = false;
    try {
      done = !work || work->wait();
    } catch (const std::exception& e) {
      fail(peer, e.what());
    }
    if (!done) fail(peer, "the operation was aborted");
    work.reset();
  }
  pending_.clear();
}

void Exchange::fail(int64_t peer, const std::string& why) {
  abandon();
  throw Error(ErrorKind::communication,
              fmt::format("[{}] rank {}: no answer from rank {} after {:.1f} s: {}", operation_,
                          group_.rank(), peer, seconds_since(begun_), first_line(why)));
}

void Exchange::abandon() noexcept {
  for (auto& [peer, work] : pending_) {
    try {
      if (work && !work->isCompleted()) work->abort();
    } catch (const std::exception&) {  // not every backend can
    }
  }
  pending_.clear();
}

void run_collective(const Group& group, const std::string& operation,
                    const std::function<c10::intrusive_ptr<c10d::Work>()>& f) {
  const auto begun = Clock::now();
  std::string why;
  try {
    const auto work = f();
    if (!work || work->wait()) return;
    why = "the operation was aborted";
  } catch (const std::exception& e) {
    why = first_line(e.what());
  }
  throw Error(ErrorKind::communication,
              fmt::format("[{}] rank {}: no answer from another rank after {:.1f} s: {}", operation,
                          group.rank(), seconds_since(begun), why));
}

}  // namespace halcyon::parallel
