// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/pixel_attention/offsets.h"
#include "halcyon/ops/pixel_attention/packing.h"

namespace halcyon {
namespace {

// How many pixels have each number of observations: counters for the usual ones, a list for the
// rest.
class CountTally {
 public:
  void add(int64_t count) {
    if (count < kCounted) [[likely]]
      ++tally_[static_cast<size_t>(count)];
    else
      long_.push_back(count);
  }
  int64_t empty() const { return tally_[0]; }

  // The lower median of the counts above 0; some must be there.
  int64_t median(int64_t used) {
    int64_t before = (used - 1) / 2;
    for (size_t count = 1; count < tally_.size(); before -= tally_[count++]) {
      if (before < tally_[count]) return static_cast<int64_t>(count);
    }
    const auto middle = long_.begin() + before;
    std::nth_element(long_.begin(), middle, long_.end());
    return *middle;
  }
  // How many counts above 0 have this.
  template <class F>
  int64_t number(const F& has) const {
    int64_t sum = std::count_if(long_.begin(), long_.end(), has);
    for (size_t count = 1; count < tally_.size(); ++count) {
      if (has(static_cast<int64_t>(count))) sum += tally_[count];
    }
    return sum;
  }

 private:
  static constexpr int64_t kCounted = 1024;
  std::array<int64_t, kCounted> tally_{};
  std::vector<int64_t> long_;
};

int32_t next_if(int32_t place, bool condition) {
  return place + static_cast<int32_t>(condition);
}

// offset (pixels + 1,) has begun with 0. Branches on counts would be mispredicted: there are none.
template <class Offset>
PixelGroupMap group_map(const Offset* offset, int32_t pixels, double thresh_mult) {
  CountTally tally;
  const std::unique_ptr<int32_t[]> filled(new int32_t[static_cast<size_t>(pixels) + 1]);
  int32_t used = 0;
  for (int32_t p = 0; p < pixels; ++p) {
    const int64_t begin = offset[p], end = offset[p + 1];
    check_ascent(begin, end, p + 1, "build_pixel_group_map");
    tally.add(end - begin);
    filled[used] = p;
    used = next_if(used, end > begin);
  }
  const float threshold =
      used > 0 ? static_cast<float>(tally.median(used)) * static_cast<float>(thresh_mult) : 0.f;
  const auto is_small = [=](int64_t count) { return static_cast<float>(count) < threshold; };
  const auto small = static_cast<int32_t>(tally.number(is_small));
  const int32_t large = used - small;

  auto program_pixels = at::empty({used}, at::kInt);
  int32_t* out = program_pixels.mutable_data_ptr<int32_t>();
  std::array<int32_t, 2> place{0, large};
  for (int32_t i = 0; i < used; ++i) {
    const int32_t p = filled[i];
    out[place[is_small(int64_t{offset[p + 1]} - offset[p])]++] = p;
  }
  const int32_t pairs = small / 2 + small % 2;
  auto program_ptr = at::empty({int64_t{large} + pairs + 1}, at::kInt);
  int32_t* ptr = program_ptr.mutable_data_ptr<int32_t>();
  for (int32_t i = 0; i <= large; ++i) ptr[i] = i;
  for (int32_t i = 0; i < pairs; ++i) ptr[large + 1 + i] = large + 2 * i + (i < small / 2 ? 2 : 1);
  return {program_ptr, program_pixels};
}

}  // namespace

PixelGroupMap build_pixel_group_map(const at::Tensor& cu_seqlens_k, double thresh_mult) {
  constexpr auto kName = "build_pixel_group_map";
  HALCYON_CHECK(!std::isnan(thresh_mult), kName, "expected a number as thresh_mult, got NaN");
  const auto offsets = offsets_from_zero(cu_seqlens_k, kName);
  const int64_t pixels = offsets.size(0) - 1;
  HALCYON_CHECK(pixels < std::numeric_limits<int32_t>::max(), kName,
                "expected fewer than 2^31 - 1 pixels, got {}", pixels);
  const auto map =
      offsets.scalar_type() == at::kInt
          ? group_map(offsets.const_data_ptr<int32_t>(), static_cast<int32_t>(pixels), thresh_mult)
          : group_map(offsets.const_data_ptr<int64_t>(), static_cast<int32_t>(pixels), thresh_mult);
  return {map.program_ptr.to(cu_seqlens_k.device()), map.program_pixels.to(cu_seqlens_k.device())};
}

PixelGroupMap PixelGroupMap::to(std::optional<at::Device> device, std::optional<at::ScalarType>,
                                bool non_blocking) const {
  const auto moved = [&](const at::Tensor& t) {
    return device && t.defined() ? t.to(*device, non_blocking, /*copy=*/true) : t.clone();
  };
  return {moved(program_ptr), moved(program_pixels)};
}

}  // namespace halcyon
