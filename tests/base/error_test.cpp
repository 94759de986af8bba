// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/error.h"

#include <gtest/gtest.h>

namespace halcyon {
namespace {

TEST(Error, MessageNamesOperationAndValues) {
  try {
    HALCYON_CHECK(1 == 2, "modulate", "expected rank {}, got {}", 3, 5);
    FAIL() << "no exception";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::argument);
    EXPECT_STREQ(e.what(), "[modulate] expected rank 3, got 5");
  }
}

TEST(Error, BugIsNotAUserError) {
  EXPECT_THROW(HALCYON_ASSERT(false), Bug);
}

}  // namespace
}  // namespace halcyon
