// SPDX-License-Identifier: Apache-2.0
// What the model is told about each of a million observations, every second one from a satellite.
#include "halcyon/obs/features.h"

#include <torch/torch.h>

#include "bench/support/compare.h"
#include "bench/support/harness.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kRows = 1000000, kNsPerSecond = 1000000000;
constexpr int64_t kTarget = 1700000000, kWindow = 3 * 3600;
constexpr double kBound = 2e-5, kTwoPi = 2 * M_PI, kRadians = M_PI / 180;

obs::Metadata metadata() {
  torch::manual_seed(1);
  const auto satellite = torch::arange(kRows).remainder(2).eq(1);
  const auto uniform = [](double low, double high) {
    return torch::rand({kRows}) * (high - low) + low;
  };
  const auto of = [](const at::Tensor& who, const at::Tensor& x) { return x.where(who, NAN); };
  const auto conventional = satellite.logical_not();
  const auto offset = torch::randint(-kWindow, kWindow, {kRows}, torch::kLong);
  return {torch::scalar_tensor(kTarget, torch::kLong),
          (offset + kTarget) * kNsPerSecond,
          uniform(-180, 180),
          uniform(-90, 90),
          of(conventional, uniform(0, 30000)),
          of(conventional, uniform(1, 1050)),
          of(satellite, uniform(-50, 50)),
          of(satellite, uniform(-60, 60)),
          of(satellite, uniform(0, 180))};
}

// sin kx, then cos kx.
at::Tensor harmonics(const at::Tensor& x, int64_t n) {
  const auto kx = x.unsqueeze(1) * torch::arange(1, n + 1, x.options());
  return at::cat({kx.sin(), kx.cos()}, 1);
}

// The formulas of obs/features.h, in double.
at::Tensor written_out(const obs::Metadata& in, int64_t layout) {
  const auto d = [](const at::Tensor& x) { return x.to(torch::kDouble); };
  const auto second = at::floor_divide(in.time_ns, kNsPerSecond).remainder(86400);
  const auto solar = (d(second) / 3600 + d(in.lon) / 15).remainder(24);
  const auto days = d(in.time_ns - in.target_time_sec * kNsPerSecond) / 86400e9;
  const auto height = (d(in.height) / 60000).clamp(0, 1) * kTwoPi;
  const auto pressure = (d(in.pressure) / 1100).clamp(0, 1) * kTwoPi;
  const auto scan = d(in.scan_angle) / 50, sat = d(in.sat_zenith_angle),
             sol = d(in.sol_zenith_angle);
  const auto first =
      at::cat({harmonics(solar * (kTwoPi / 24), 2), at::stack({days, days * days}, 1)}, 1);
  if (layout == 28) {
    const auto cos_sat = (sat * kRadians).cos(), angle = sol * kRadians;
    const auto last =
        at::stack({scan, scan * scan, cos_sat, cos_sat * cos_sat, angle.cos(), angle.sin()}, 1);
    return at::cat({first, harmonics(height, 4), harmonics(pressure, 4), last}, 1).nan_to_num(0);
  }
  const auto conventional = at::cat({harmonics(height, 5), harmonics(pressure, 5)}, 1);
  const auto satellite = at::cat({harmonics(scan * kTwoPi, 3), harmonics(sat * (kTwoPi / 90), 4),
                                  harmonics(sol * (kTwoPi / 180), 3)},
                                 1);
  return at::cat({first, harmonics(days, 1), harmonics(d(in.lat) * kRadians, 1),
                  at::where(in.height.isnan().unsqueeze(1), satellite, conventional)},
                 1);
}

// Bytes: a time and seven columns in, the features out.
Case features(int64_t layout) {
  const auto in = metadata();
  const auto out = std::make_shared<at::Tensor>();
  Case c;
  c.run = [=] { *out = obs::float_metadata(in, layout); };
  c.bytes = static_cast<double>(kRows * (8 + 4 * (7 + layout)));
  c.deviation = [=] { return deviation(*out, written_out(in, layout), kBound); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add("float_metadata/1M_28/fwd/fp32", [] { return features(28); });
  add("float_metadata/1M_30/fwd/fp32", [] { return features(30); });
  return run(argc, argv);
}
