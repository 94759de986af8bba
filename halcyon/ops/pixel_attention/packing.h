// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

// From observations with a pixel each to runs of observations per pixel, the ragged layout that
// pixel_attention reads. All functions take int32 or int64, strided or not.
namespace halcyon {

// Sorts observations by pixel, stably (counting sort). flat_idx (N,) holds values in
// [0, total_pixels). Returns order int32 (N,), so that flat_idx[order] ascends, and counts int64
// (total_pixels,).
std::tuple<at::Tensor, at::Tensor> sort_and_pack(const at::Tensor& flat_idx, int64_t total_pixels);

// int32 (P + 1,): 0 and the inclusive sums of counts (P,). More than 2^31 - 1 in all is an Error.
at::Tensor counts_to_cu_seqlens(const at::Tensor& counts);

// Which pixels a program (a thread block) of the device kernel works on: program i has
// program_pixels[program_ptr[i] : program_ptr[i + 1]]. It changes the schedule, never the numbers.
struct PixelGroupMap {
  at::Tensor program_ptr;     // int32 (n_programs + 1,)
  at::Tensor program_pixels;  // int32 (n_nonempty,)

  // A moved copy; floating tensors alone are cast, and there are none here.
  PixelGroupMap to(std::optional<at::Device> device = {}, std::optional<at::ScalarType> dtype = {},
                   bool non_blocking = true) const;
};

// Pixels with fewer than thresh_mult times the (lower) median of the non-empty counts share a
// program in pairs; the others have their own and come first. Empty pixels are left out.
PixelGroupMap build_pixel_group_map(const at::Tensor& cu_seqlens_k, double thresh_mult = 2.0);

}  // namespace halcyon
