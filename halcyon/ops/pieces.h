// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace halcyon {

// While it lives, torch's matrix products in this thread run on one thread. MKL rounds otherwise on
// another number of threads, even where it is called from a parallel region and uses one only.
class OneProductThread {
 public:
  OneProductThread();
  ~OneProductThread();
  OneProductThread(const OneProductThread&) = delete;
  OneProductThread& operator=(const OneProductThread&) = delete;

 private:
  int before_;
};

// f(i) of every i < count, in any order and on several threads, each call on one: torch's operators
// give it the same bits whatever the number of threads is. Threads do not inherit dispatch keys.
template <class F>
void each_piece(int64_t count, const F& f) {
  // a range of one would run where torch sees all threads
  at::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t begin, int64_t end) {
    const OneProductThread one;
    for (int64_t i = begin; i < std::min(end, count); ++i) f(i);
  });
}

}  // namespace halcyon
