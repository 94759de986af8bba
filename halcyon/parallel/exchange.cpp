// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/exchange.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"
#include "halcyon/parallel/companion.h"

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
  if (queues_of(group)) return true;  // nobody else's thread takes part
  static const int64_t cores = std::thread::hardware_concurrency();
  return cores >= 2 * group.size();  // all of them may be on this machine
}

Exchange::Exchange(Group group, std::string operation, int64_t tag, bool counted)
    : group_(std::move(group)), operation_(std::move(operation)), tag_(tag), counted_(counted) {}

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
  if (any.device().is_cpu()) queues_ = queues_of(group_);
  if (queues_) return post_shared();
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
    // Sends first: gloo's thread then moves the data when the peer asks. A send that finds the peer
    // asking moves it here, under a lock that gloo's thread spins on.
    run(sends_, &c10d::Backend::send);
    run(receives_, &c10d::Backend::recv);
    if (together) pending_.push_back({peer, backend->endCoalescing()});
  } catch (const std::exception& e) {
    fail(peer, e.what());
  }
  for (const auto& message : sends_) {
    if (counted_) count(message.tensor);
  }
}

void Exchange::wait() {
  if (queues_) return wait_shared();
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
  if (queues_) queues_->leave();
  throw Error(ErrorKind::communication,
              fmt::format("[{}] rank {}: no answer from rank {} after {:.1f} s: {}", operation_,
                          group_.rank(), peer, seconds_since(begun_), first_line(why)));
}

void Exchange::post_shared() {
  if (queues_->is_over()) {
    fail(receives_.empty() ? sends_.front().peer : receives_.front().peer,
         "the group ended with an earlier failure");
  }
  for (const auto& [peer, tensor] : receives_) {
    shared_receives_.push_back(
        {peer, tag_, static_cast<unsigned char*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  }
  for (auto& receive : shared_receives_) queues_->post(receive);
  for (const auto& [peer, tensor] : sends_) {
    shared_sends_.push_back(
        {peer, tag_, static_cast<const unsigned char*>(tensor.const_data_ptr()), tensor.nbytes()});
    if (counted_) count(tensor);
  }
  for (auto& send : shared_sends_) sending_.push_back(&send);
  queues_->progress(sending_);
}

// Looks for what came, a while without sleeping: a peer that works at the same is soon done.
void Exchange::wait_shared() {
  constexpr auto kAwake = std::chrono::microseconds(50);
  constexpr int kNapMilliseconds = 50;
  const auto waiting_since = Clock::now();
  auto last_seen = waiting_since;
  auto next_look = last_seen + std::chrono::milliseconds(100);
  for (;;) {
    const auto bell = queues_->bell();
    const bool moved = queues_->progress(sending_);
    const auto missing = std::find_if(shared_receives_.begin(), shared_receives_.end(),
                                      [](auto& receive) { return !receive.is_done(); });
    const bool is_received = missing == shared_receives_.end();
    if (is_received && sending_.empty()) break;
    const auto now = Clock::now();
    if (moved) {
      last_seen = now;
      continue;
    }
    const auto peer = is_received ? sending_.front()->peer : missing->peer;
    if (now - last_seen < kAwake) {
      sched_yield();
      continue;
    }
    if (now >= next_look) {
      next_look = now + std::chrono::milliseconds(100);
      // what it sent before it left is read first
      if (queues_->has_left(peer) && !queues_->progress(sending_)) {
        fail(peer, "it has ended or left the group");
      }
    }
    if (seconds_since(waiting_since) > timeout_seconds()) fail(peer, "timed out");
    queues_->sleep(bell, kNapMilliseconds);
  }
  for (const auto& receive : shared_receives_) {
    if (receive.expected > receive.bytes) {
      fail(receive.peer, fmt::format("expected a message of {} bytes, got one of {}", receive.bytes,
                                     receive.expected));
    }
  }
  shared_receives_.clear();
  shared_sends_.clear();
}

double Exchange::timeout_seconds() const {
  const auto options = group_.backend(c10::kCPU)->getBackendOptions();
  return std::chrono::duration<double>(options->timeout).count();
}

void Exchange::abandon() noexcept {
  for (auto& receive : shared_receives_) {
    if (!receive.is_done()) queues_->withdraw(receive);
  }
  shared_receives_.clear();
  sending_.clear();
  for (auto& [peer, work] : pending_) {
    try {
      if (work && !work->isCompleted()) work->abort();
    } catch (const std::exception& e) {  // not every backend can
      log::debug("[{}] rank {}: an operation goes on: {}", operation_, group_.rank(), e.what());
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
