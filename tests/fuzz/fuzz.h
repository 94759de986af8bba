// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "halcyon/base/error.h"

namespace halcyon::fuzz {

// Runs read(); an Error(input) is a right answer to any bytes, everything else ends the program.
template <class Read>
int expect_input_errors(Read&& read) {
  try {
    read();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::input) {
      std::fprintf(stderr, "another kind of error: %s\n", e.what());
      std::abort();
    }
  }
  return 0;
}

// The bytes as a file, for readers that take a path; one per process, written anew each time.
inline std::filesystem::path as_file(const std::uint8_t* data, std::size_t size,
                                     const std::string& extension) {
  static const auto path = std::filesystem::temp_directory_path() /
                           ("halcyon-fuzz-" + std::to_string(::getpid()) + extension);
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  return path;
}

}  // namespace halcyon::fuzz
