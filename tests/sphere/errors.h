// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "halcyon/base/error.h"

namespace halcyon::test {

// f() throws an Error of this kind whose message holds part.
template <class F>
void expect_error(const F& f, const std::string& part, ErrorKind kind = ErrorKind::argument) {
  try {
    f();
    ADD_FAILURE() << "expected an error with \"" << part << "\"";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind);
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

}  // namespace halcyon::test
