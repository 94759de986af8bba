// SPDX-License-Identifier: Apache-2.0
#include "tests/apps/program.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "tests/support/paths.h"

namespace halcyon::test {

Result halcyon_says(const std::string& arguments, const std::string& redirection,
                    const std::string& before) {
  const auto program = (binary_dir() / "bin/halcyon").string();
  const auto command = fmt::format("{} '{}' {} {}", before, program, arguments, redirection);
  FILE* pipe = ::popen(command.c_str(), "r");
  Result result;
  std::array<char, 4096> buffer{};
  while (const auto count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    result.output.append(buffer.data(), count);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

}  // namespace halcyon::test
