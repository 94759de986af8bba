// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace halcyon::test {

struct Result {
  int code = -1;
  std::string output;  // of both streams
};

// Runs the program as a shell would; before: commands of the shell that come first, with their ;.
Result halcyon_says(const std::string& arguments, const std::string& redirection = "2>&1",
                    const std::string& before = "");

}  // namespace halcyon::test
