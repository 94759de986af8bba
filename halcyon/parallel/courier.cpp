// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/courier.h"

#include <c10/core/GradMode.h>
#include <c10/util/ParallelGuard.h>

#include <utility>

namespace halcyon::parallel {

Courier::Courier() : thread_([this] { run(); }) {}

Courier::~Courier() {
  {
    const std::lock_guard lock(mutex_);
    jobs_.clear();
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Courier::submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
}

void Courier::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_.empty() && !busy_; });
  if (const auto failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
}

void Courier::run() {
  const c10::NoGradGuard data_only;
  const c10::ParallelGuard one_core(true);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ended_ || !jobs_.empty(); });
    if (ended_) return;
    const auto job = std::exchange(jobs_.front(), nullptr);
    jobs_.pop_front();
    if (failure_) {
      changed_.notify_all();
      continue;
    }
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      job();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    if (failure) failure_ = failure;
    changed_.notify_all();
  }
}

}  // namespace halcyon::parallel
