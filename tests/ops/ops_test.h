// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/ops/cpu_level.h"

namespace halcyon::test {

// The instruction sets that this machine can run.
inline std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> all{CpuLevel::baseline};
  if (cpu_level() >= CpuLevel::avx2) all.push_back(CpuLevel::avx2);
  if (cpu_level() >= CpuLevel::avx512) all.push_back(CpuLevel::avx512);
  return all;
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
