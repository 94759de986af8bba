// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "halcyon/model/checkpoint/mdlus.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace halcyon;
  const auto blob = checkpoint::Blob::allocate(size);
  if (size > 0) std::memcpy(blob.bytes().data(), data, size);
  return fuzz::expect_input_errors([&] {
    const auto content = checkpoint::read_mdlus(blob, "fuzz");
    for (const auto& [name, tensor] : content.tensors) tensor.read().contiguous();
  });
}
