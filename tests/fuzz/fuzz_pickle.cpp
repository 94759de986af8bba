// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "halcyon/model/checkpoint/pickle.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace halcyon;
  const auto blob = checkpoint::Blob::allocate(size);
  if (size > 0) std::memcpy(blob.bytes().data(), data, size);
  return fuzz::expect_input_errors([&] {
    checkpoint::read_state_dict_pickle(blob, {"load", "fuzz"});
  });
}
