// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace halcyon::parallel {

// Runs jobs one after the other in a thread of its own, which keeps to one core: what talks to the
// other ranks while this rank computes.
class Courier {
 public:
  Courier();
  ~Courier();
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

  void submit(std::function<void()> job);
  // Until all have run; throws what the first that failed threw, after which no more were run.
  void wait();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::exception_ptr failure_;
  bool busy_ = false, ended_ = false;
  std::thread thread_;
};

}  // namespace halcyon::parallel
