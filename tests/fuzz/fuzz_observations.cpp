// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/files.h"
#include "halcyon/obs/reader.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace halcyon;
  static const auto stations = [] {
    const auto path = std::filesystem::temp_directory_path() /
                      ("halcyon-fuzz-" + std::to_string(::getpid()) + "-stations.csv");
    write_text(path, "station,lat,lon\nBoston,42.36,-71.06\nNew_York,40.71,-74.01\n");
    return path;
  }();
  const auto path = fuzz::as_file(data, size, ".obs");
  return fuzz::expect_input_errors(
      [&] { obs::read_file(path, "auto", {.variables = {}, .stations = stations}); });
}
