// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/moments.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"

namespace halcyon::parallel {

LocalMoments local_moments(const at::Tensor& given, at::IntArrayRef axes) {
  const c10::NoGradGuard data_only;
  const auto x = given.detach();
  LocalMoments out;
  auto sizes = x.sizes().vec();
  out.count = 1;
  for (const auto axis : axes) {
    out.count *= sizes[axis];
    sizes[axis] = 1;
  }
  if (x.numel() == 0) {
    out.shift = at::zeros(sizes, x.options());
    out.centred = at::empty_like(x);
    out.mean = at::zeros(sizes, x.options().dtype(at::kDouble));
    out.squares = at::zeros_like(out.mean);
    return out;
  }
  out.shift = x.mean(axes, /*keepdim=*/true);
  out.centred = x - out.shift;
  const auto [variance, mean] = at::var_mean(out.centred, axes, /*correction=*/0, /*keepdim=*/true);
  out.mean = out.shift.to(at::kDouble) + mean;
  out.squares = variance.to(at::kDouble) * out.count;
  return out;
}

Moments moments_over_ranks(const Moments& mine, const std::vector<int64_t>& counts,
                           const Group& group, const std::string& operation, int64_t tag) {
  if (group.size() == 1) return mine;
  const c10::NoGradGuard data_only;
  HALCYON_ASSERT(counts.at(group.rank()) == mine.count);
  std::vector<at::Tensor> all(group.size());
  all[group.rank()] = at::stack({mine.mean, mine.squares});
  Exchange exchange(group, operation, tag);
  for (int64_t r = 0; r < group.size(); ++r) {
    if (r == group.rank()) continue;
    if (counts[r] > 0) exchange.receive(r, all[r] = at::empty_like(all[group.rank()]));
    if (mine.count > 0) exchange.send(r, all[group.rank()]);
  }
  exchange.post();
  exchange.wait();
  Moments out{0, at::zeros_like(mine.mean), at::zeros_like(mine.squares)};
  for (int64_t r = 0; r < group.size(); ++r) {
    if (counts[r] == 0) continue;
    const auto before = static_cast<double>(out.count), added = static_cast<double>(counts[r]);
    const auto difference = all[r][0] - out.mean;
    out.count += counts[r];
    out.mean.add_(difference * (added / (before + added)));
    out.squares.add_(all[r][1]).add_(difference.square(), before * added / (before + added));
  }
  return out;
}

}  // namespace halcyon::parallel
