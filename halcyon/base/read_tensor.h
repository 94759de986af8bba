// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "halcyon/base/input_file.h"

namespace halcyon {

// As InputFile::read, on all threads: what is large is read in pieces side by side.
void read_in_pieces(const InputFile& file, std::uint64_t offset, std::span<std::byte> into);

// A tensor in memory of its own, on the CPU, filled with the bytes from offset on.
at::Tensor read_tensor(const InputFile& file, std::uint64_t offset, at::IntArrayRef sizes,
                       at::ScalarType dtype);

}  // namespace halcyon
