// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace halcyon;
  const auto path = fuzz::as_file(data, size, ".safetensors");
  return fuzz::expect_input_errors([&] {
    const auto content = read_checkpoint(path);
    for (const auto& [name, tensor] : content.tensors) tensor.read().clone();
  });
}
