// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/ops/cpu_level.h"
#include "tests/support/compare.h"

namespace halcyon::test {

// The instruction sets that this machine can run.
inline std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> all{CpuLevel::baseline};
  if (cpu_level() >= CpuLevel::avx2) all.push_back(CpuLevel::avx2);
  if (cpu_level() >= CpuLevel::avx512) all.push_back(CpuLevel::avx512);
  return all;
}

// run() gives the same tensors, bit for bit, on any number of threads.
inline void expect_same_bits(const std::string& text,
                             const std::function<std::vector<at::Tensor>()>& run) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  for (const int threads : {2, 3, 5}) {
    at::set_num_threads(threads);
    const auto many = run();
    for (std::size_t i = 0; i < one.size(); ++i)
      EXPECT_TRUE(identical(many[i], one[i])) << text << " threads " << threads << " tensor " << i;
  }
  at::set_num_threads(before);
}

// f throws Error(argument) with this part in its message.
template <class F>
void expect_error(const std::string& part, F&& f) {
  try {
    f();
    ADD_FAILURE() << "no Error with " << part;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::argument);
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what() << " lacks " << part;
  }
}

}  // namespace halcyon::test
