// SPDX-License-Identifier: Apache-2.0
// The pixel of each observation, from float32 places.
#include "halcyon/sphere/healpix.h"

#include <torch/torch.h>

#include <cmath>

#include "bench/support/harness.h"

namespace halcyon::bench {
namespace {

constexpr int kLevel = 10;
constexpr int64_t kRows = 1000000;

at::Tensor unit_vectors(const at::Tensor& lon, const at::Tensor& lat) {
  const auto a = lon.to(at::kDouble).deg2rad(), b = lat.to(at::kDouble).deg2rad();
  return at::stack({b.cos() * a.cos(), b.cos() * a.sin(), b.sin()}, 1);
}

// The farthest point from the centre of its pixel, as a share of a pixel's largest radius: 1.068 /
// n at a large n (the corner at z = 2/3), and 2 % for what float32 may push over a border by the
// data pipe's rule.
double farthest(const at::Tensor& lon, const at::Tensor& lat, const at::Tensor& pix) {
  const auto [centre_lon, centre_lat] = healpix::pix2ang(kLevel, pix);
  const auto apart = unit_vectors(lon, lat) - unit_vectors(centre_lon, centre_lat);
  constexpr double kRadius = 1.02 * 1.068 / (1 << kLevel);
  return apart.norm(2, 1).max().item<double>() / kRadius;
}

// Bytes: two coordinates in, a number out.
Case ang2pix(healpix::Rule rule) {
  torch::manual_seed(1);
  const auto lon = torch::rand({kRows}) * 360;
  const auto lat = (torch::rand({kRows}) * 2 - 1).asin().rad2deg();  // even over the sphere
  const auto pix = std::make_shared<at::Tensor>();
  Case c;
  c.run = [=] { *pix = healpix::ang2pix(kLevel, lon, lat, healpix::Order::pad_xy, rule); };
  c.bytes = kRows * (2 * sizeof(float) + sizeof(int64_t));
  c.deviation = [=] { return farthest(lon, lat, *pix); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add("ang2pix/1M_level10/fwd/fp32", [] { return ang2pix(halcyon::healpix::Rule::standard); });
  add("ang2pix/1M_level10_healda/fwd/fp32", [] { return ang2pix(halcyon::healpix::Rule::healda); });
  return run(argc, argv);
}
