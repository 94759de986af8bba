// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/ops/neighborhood/sphere/part_attention.h"
#include "halcyon/ops/neighborhood/sphere/pixel_reach.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/index_transfer.h"
#include "halcyon/parallel/neighborhood.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/sharded_operands.h"

namespace halcyon::parallel {
namespace {

constexpr auto kName = "neighborhood_attention_healpix";
constexpr int64_t kPixels = 1;  // the sharded axis

void check_operands(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  for (const auto& [name, t] : {std::pair("q", q), {"k", k}, {"v", v}}) {
    neighborhood::check_dense(kName, name, t);
    HALCYON_CHECK(t.defined() && t.dim() == 4 && at::isFloatingType(t.scalar_type()), kName,
                  "expected {} of shape (B, X, H, d) and a floating type, got {}", name,
                  describe(t));
    HALCYON_CHECK(t.scalar_type() == q.scalar_type() && t.device() == q.device(), kName,
                  "expected {} in the dtype and on the device of q, got {} and {}", name,
                  describe(t), describe(q));
    HALCYON_CHECK(t.size(0) == q.size(0) && t.size(1) == q.size(1), kName,
                  "expected {} with q's batch and pixels, got {} and {}", name, describe(t),
                  describe(q));
    HALCYON_CHECK(t.size(2) > 0 && t.size(3) > 0, kName,
                  "expected {} with heads and channels, got {}", name, describe(t));
  }
  HALCYON_CHECK(k.size(3) == q.size(3), kName, "expected k with {} channels, got {}", q.size(3),
                k.size(3));
  HALCYON_CHECK(q.size(2) % k.size(2) == 0, kName,
                "expected heads of k that divide the {} of q, got {}", q.size(2), k.size(2));
  HALCYON_CHECK(v.size(2) == k.size(2), kName, "expected v with the {} heads of k, got {}",
                k.size(2), v.size(2));
}

}  // namespace

at::Tensor neighborhood_attention_healpix(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const HealpixNeighborhood& window,
                                          std::optional<double> scale, const Group& group) {
  Agreement agreement(group, kName);
  size_t pixels_at = 0, grad_at = 0;
  agreement.prepare([&] {
    HALCYON_CHECK(!window.region, kName, "expected no region, got one");
    check_operands(q, k, v);
    check_healpix_window(kName, window);
    agreement.same_but("q", q, kPixels);
    agreement.same_but("k", k, kPixels);
    agreement.same_but("v", v, kPixels);
    agreement.same("level", window.level);
    agreement.same("radius_deg", window.radius_deg.value_or(-1));
    agreement.same("rings", window.rings.value_or(-1));
    agreement.same("order", std::string(healpix::name_of(window.order)));
    agreement.same("scale", scale.value_or(0));
    HALCYON_CHECK(!scale || std::isfinite(*scale), kName, "expected a finite scale, got {}",
                  *scale);
    pixels_at = agreement.each(q.size(kPixels));
    grad_at = agreement.each(k.requires_grad() || v.requires_grad());
  });
  agreement.post();
  agreement.finish();
  const auto starts = starts_of(agreement.of_all(pixels_at));
  const auto level = static_cast<int>(window.level);
  HALCYON_CHECK(starts.back() == healpix::npix(level), kName,
                "expected {} pixels over all ranks, got {}", healpix::npix(level), starts.back());
  if (group.size() == 1) return halcyon::neighborhood_attention_healpix(q, k, v, window, scale);

  const auto start = starts[group.rank()], stop = starts[group.rank() + 1];
  const auto reach = neighborhood::pixel_reach(
      {level, window.radius_deg, window.rings, window.order, {}}, starts, group.rank());
  const auto kv = joined_to_backward(at::cat({k, v}, -1), agreement.any(grad_at));
  const auto seen = move_indexed(kv, index_transfer(kName, group, agreement.tag(), kPixels, starts,
                                                    reach->seen, reach->seen_own, kv.device()));
  const auto keys = seen.narrow(-1, 0, k.size(-1)),
             values = seen.narrow(-1, k.size(-1), v.size(-1));
  if (start == stop) {
    auto sizes = q.sizes().vec();
    sizes.back() = v.size(-1);
    return empty_result(sizes, {q, keys, values}, q.scalar_type());
  }
  // the pixels that this rank's see, as a region: its own, which see themselves, stand together
  const auto before = (reach->seen < start).sum().item<int64_t>();
  const auto after = reach->seen.numel() - before - (stop - start);
  if (q.is_cpu() && !has_tangent(q) && !has_tangent(keys)) {
    const auto factor = scale.value_or(std::pow(static_cast<double>(q.size(3)), -0.5));
    return neighborhood::part_attention(
        q, keys, values, {level, window.radius_deg, window.rings, window.order, reach->seen},
        before, factor);
  }
  auto region = window;
  region.region = reach->seen.to(q.device());
  return halcyon::neighborhood_attention_healpix(with_zeros(q, kPixels, before, after), keys,
                                                 values, region, scale)
      .narrow(kPixels, before, stop - start);
}

}  // namespace halcyon::parallel
