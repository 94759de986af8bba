// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/ops/neighborhood/sphere/operators.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"

namespace halcyon {
namespace {

using neighborhood::PixelWindow;

// All but what the region holds.
PixelWindow checked_window(const char* name, const HealpixNeighborhood& window) {
  HALCYON_CHECK(window.level >= 0 && window.level <= healpix::kMaxFieldLevel, name,
                "expected a level in 0..{}, got {}", healpix::kMaxFieldLevel, window.level);
  HALCYON_CHECK(window.radius_deg.has_value() != window.rings.has_value(), name,
                "expected one of radius_deg and rings, got {}", window.rings ? "both" : "none");
  if (window.radius_deg)
    HALCYON_CHECK(*window.radius_deg > 0 && *window.radius_deg <= 180, name,
                  "expected a radius_deg above 0 up to 180, got {}", *window.radius_deg);
  if (window.rings)
    HALCYON_CHECK(*window.rings >= 0, name, "expected rings of 0 or more, got {}", *window.rings);
  HALCYON_CHECK(window.order != healpix::Order::ring, name,
                "expected the order nest or pad_xy, got {}", healpix::name_of(window.order));
  if (window.region) {
    const auto& region = *window.region;
    HALCYON_CHECK(region.defined() && region.dim() == 1 && region.scalar_type() == at::kLong, name,
                  "expected a region of rank 1 in int64, got {}", describe(region));
  }
  return {static_cast<int>(window.level), window.radius_deg, window.rings, window.order,
          window.region};
}

void check_operand(const char* name, const char* what, const at::Tensor& t, const at::Tensor& q) {
  neighborhood::check_dense(name, what, t);
  check_floating(t, 4, name, what);
  HALCYON_CHECK(t.scalar_type() == q.scalar_type(), name,
                "expected {} in the dtype of q, {}, got {}", what, c10::toString(q.scalar_type()),
                c10::toString(t.scalar_type()));
  check_device(t, q, name, what);
  HALCYON_CHECK(t.size(0) == q.size(0) && t.size(1) == q.size(1), name,
                "expected {} with batch {} and {} pixels, got {}", what, q.size(0), q.size(1),
                describe(t));
  HALCYON_CHECK(t.size(2) > 0 && t.size(3) > 0, name, "expected {} with heads and channels, got {}",
                what, describe(t));
}

}  // namespace

at::Tensor neighborhood_attention_healpix(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const HealpixNeighborhood& window,
                                          std::optional<double> scale) {
  constexpr auto kName = "neighborhood_attention_healpix";
  const auto checked = checked_window(kName, window);
  check_operand(kName, "q", q, q);
  check_operand(kName, "k", k, q);
  check_operand(kName, "v", v, q);
  const int64_t pixels =
      window.region ? window.region->size(0) : healpix::npix(static_cast<int>(window.level));
  HALCYON_CHECK(q.size(1) == pixels, kName, "expected {} pixels, got {}", pixels, q.size(1));
  HALCYON_CHECK(k.size(3) == q.size(3), kName, "expected k with {} channels, got {}", q.size(3),
                k.size(3));
  HALCYON_CHECK(q.size(2) % k.size(2) == 0, kName,
                "expected heads of k that divide the {} of q, got {}", q.size(2), k.size(2));
  HALCYON_CHECK(v.size(2) == k.size(2), kName, "expected v with the {} heads of k, got {}",
                k.size(2), v.size(2));
  const double factor = scale.value_or(std::pow(static_cast<double>(q.size(3)), -0.5));
  HALCYON_CHECK(std::isfinite(factor), kName, "expected a finite scale, got {}", factor);
  return neighborhood::sphere_operator(q, k, v, checked, factor);
}

void check_healpix_window(const char* name, const HealpixNeighborhood& window) {
  neighborhood::check_region(name, checked_window(name, window));
}

at::Tensor healpix_seen(const HealpixNeighborhood& window) {
  constexpr auto kName = "healpix_seen";
  return neighborhood::seen_mask(*neighborhood::pixel_lists(checked_window(kName, window), kName));
}

HealpixNeighborhoodStats neighborhood_attention_healpix_stats(const HealpixNeighborhood& window) {
  constexpr auto kName = "neighborhood_attention_healpix_stats";
  const auto lists = neighborhood::pixel_lists(checked_window(kName, window), kName);
  HealpixNeighborhoodStats stats{static_cast<int64_t>(lists->token.size()), lists->pairs,
                                 static_cast<int64_t>(lists->seen.size()) * neighborhood::kBlock,
                                 1};
  if (stats.computed > 0)
    stats.useful_share = static_cast<double>(stats.pairs) / static_cast<double>(stats.computed);
  return stats;
}

}  // namespace halcyon
