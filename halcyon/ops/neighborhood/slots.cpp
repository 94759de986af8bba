// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/slots.h"

#include <ATen/ATen.h>

namespace halcyon::neighborhood {
namespace {

// (length, kernel)
Slots slots_of(const Axis& axis) {
  const auto long_options = at::TensorOptions(at::kLong);
  Slots slots{at::zeros({axis.length, axis.kernel}, long_options),
              at::zeros({axis.length, axis.kernel}, long_options),
              at::zeros({axis.length, axis.kernel}, at::kBool)};
  auto key = slots.key.accessor<int64_t, 2>(), relative = slots.relative.accessor<int64_t, 2>();
  auto used = slots.used.accessor<bool, 2>();
  for (int64_t i = 0; i < axis.length; ++i) {
    const int64_t residue = i % axis.dilation, g = i / axis.dilation, n = group_size(axis, residue);
    const auto span = window(axis, g, n);
    for (int64_t s = 0; s < span.count; ++s) {
      const int64_t position = span.start + s;
      key[i][s] = (position % n + n) % n * axis.dilation + residue;
      relative[i][s] = position - g + axis.kernel - 1;
      used[i][s] = true;
    }
    // unused slots name a key that is seen, as what they gather is multiplied by 0
    for (int64_t s = span.count; s < axis.kernel; ++s) key[i][s] = key[i][0];
  }
  return slots;
}

}  // namespace

Slots make_slots(const std::vector<Axis>& axes) {
  Slots all = slots_of(axes.front());
  for (std::size_t a = 1; a < axes.size(); ++a) {
    const auto one = slots_of(axes[a]);
    const auto join = [&](const at::Tensor& outer, const at::Tensor& inner, int64_t size) {
      return (outer.view({outer.size(0), 1, outer.size(1), 1}) * size +
              inner.view({1, inner.size(0), 1, inner.size(1)}))
          .reshape({outer.size(0) * inner.size(0), outer.size(1) * inner.size(1)});
    };
    all = {join(all.key, one.key, axes[a].length),
           join(all.relative, one.relative, 2 * axes[a].kernel - 1),
           join(all.used.to(at::kLong), one.used.to(at::kLong), 2) == 3};
  }
  return all;
}

}  // namespace halcyon::neighborhood
