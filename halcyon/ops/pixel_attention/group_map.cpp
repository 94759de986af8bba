// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/pixel_attention/offsets.h"
#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon {

PixelGroupMap build_pixel_group_map(const at::Tensor& cu_seqlens_k, double thresh_mult) {
  HALCYON_CHECK(!std::isnan(thresh_mult), "build_pixel_group_map",
                "expected a number as thresh_mult, got NaN");
  const auto offsets = host_offsets(cu_seqlens_k, "build_pixel_group_map");
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  const int64_t pixels = offsets.size(0) - 1;

  std::vector<int64_t> counts;
  counts.reserve(pixels);
  for (int64_t p = 0; p < pixels; ++p) {
    if (offset[p + 1] > offset[p]) counts.push_back(offset[p + 1] - offset[p]);
  }
  const int64_t used = static_cast<int64_t>(counts.size());
  float threshold = 0;
  if (used > 0) {
    const auto median = counts.begin() + (used - 1) / 2;  // the lower of the two in the middle
    std::nth_element(counts.begin(), median, counts.end());
    threshold = static_cast<float>(*median) * static_cast<float>(thresh_mult);
  }
  auto program_pixels = at::empty({used}, at::kInt);
  int32_t* out = program_pixels.mutable_data_ptr<int32_t>();
  std::vector<int32_t> small;
  int64_t large = 0;
  for (int64_t p = 0; p < pixels; ++p) {
    const int64_t count = offset[p + 1] - offset[p];
    if (count == 0) continue;
    if (static_cast<float>(count) < threshold) {
      small.push_back(static_cast<int32_t>(p));
    } else {
      out[large++] = static_cast<int32_t>(p);
    }
  }
  std::copy(small.begin(), small.end(), out + large);
  const int64_t pairs = (used - large + 1) / 2;
  auto program_ptr = at::empty({large + pairs + 1}, at::kInt);
  int32_t* ptr = program_ptr.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i <= large + pairs; ++i) {
    ptr[i] = static_cast<int32_t>(i <= large ? i : std::min(large + 2 * (i - large), used));
  }
  return {program_ptr.to(cu_seqlens_k.device()), program_pixels.to(cu_seqlens_k.device())};
}

PixelGroupMap PixelGroupMap::to(std::optional<at::Device> device, std::optional<at::ScalarType>,
                                bool non_blocking) const {
  const auto moved = [&](const at::Tensor& t) {
    return device && t.defined() ? t.to(*device, non_blocking, /*copy=*/true) : t.clone();
  };
  return {moved(program_ptr), moved(program_pixels)};
}

}  // namespace halcyon
