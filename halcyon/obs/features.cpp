// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/features.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

namespace halcyon::obs {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kGrain = 1 << 12;
constexpr float kTwoPi = 6.283185307179586f;
constexpr float kRadians = 0.017453292519943295f;

// sin kx, then cos kx for k = 1..n, by the angle sum from one sine and cosine.
float* harmonics(float x, int n, float* out) {
  const float s = std::sin(x), c = std::cos(x);
  float sk = s, ck = c;
  for (int k = 0; k < n; ++k) {
    out[k] = sk;
    out[n + k] = ck;
    const float next = sk * c + ck * s;
    ck = ck * c - sk * s;
    sk = next;
  }
  return out + 2 * n;
}

// NaN stays NaN.
float clamped(float x) {
  return x < 0 ? 0.f : x > 1 ? 1.f : x;
}

// The remainder with the divisor's sign, as Python has it.
float wrapped(float x, float period) {
  const float rest = std::fmod(x, period);
  const float positive = rest < 0 ? rest + period : rest;
  return positive >= period ? 0.f : positive;
}

float solar_time(float lon, int64_t time_ns) {
  const int64_t seconds = time_ns / kNsPerSecond - (time_ns % kNsPerSecond < 0);
  const int64_t of_day = ((seconds % 86400) + 86400) % 86400;
  return wrapped(static_cast<float>(of_day) / 3600.f + lon / 15.f, 24.f);
}

// Days after the target. The difference wraps around for times that no observation has.
float days_after(int64_t time_ns, int64_t target_sec) {
  const auto difference = static_cast<int64_t>(static_cast<std::uint64_t>(time_ns) -
                                               static_cast<std::uint64_t>(target_sec) *
                                                   static_cast<std::uint64_t>(kNsPerSecond));
  return static_cast<float>(difference) * 1e-9f / 3600.f / 24.f;
}

// One row's inputs.
struct Row {
  float solar, days, lat, height, pressure, scan, sat, sol;
};

float* solar_and_days(const Row& row, float* out) {
  out = harmonics(kTwoPi * (row.solar / 24.f), 2, out);
  *out++ = row.days;
  *out++ = row.days * row.days;
  return out;
}

float* common_ten(const Row& row, float* out) {
  out = solar_and_days(row, out);
  out = harmonics(row.days, 1, out);
  return harmonics(row.lat * kRadians, 1, out);
}

float* satellite_twenty(const Row& row, float* out) {
  out = harmonics(kTwoPi * (row.scan / 50.f), 3, out);
  out = harmonics(kTwoPi * (row.sat / 90.f), 4, out);
  return harmonics(kTwoPi * (row.sol / 180.f), 3, out);
}

float* heights(const Row& row, int n, float* out) {
  out = harmonics(kTwoPi * clamped(row.height / 60000.f), n, out);
  return harmonics(kTwoPi * clamped(row.pressure / 1100.f), n, out);
}

float* zeros(int n, float* out) {
  std::fill(out, out + n, 0.f);
  return out + n;
}

void standard28(const Row& row, float* first) {
  float* out = heights(row, 4, solar_and_days(row, first));
  const float scan = row.scan / 50.f, sat = std::cos(row.sat * kRadians);
  *out++ = scan;
  *out++ = scan * scan;
  *out++ = sat;
  *out++ = sat * sat;
  *out++ = std::cos(row.sol * kRadians);
  *out++ = std::sin(row.sol * kRadians);
  for (float* x = first; x < out; ++x) {
    if (std::isnan(*x)) *x = 0;
  }
}

void extended30(const Row& row, float* out) {
  out = common_ten(row, out);
  if (std::isnan(row.height)) {
    satellite_twenty(row, out);
  } else {
    heights(row, 5, out);
  }
}

void split50(const Row& row, float* out) {
  out = common_ten(row, out);
  if (std::isnan(row.height)) {
    zeros(20, satellite_twenty(row, out));
  } else {
    heights(row, 5, zeros(20, out));
  }
}

// A column checked and brought to the CPU.
at::Tensor column(const at::Tensor& x, int64_t rows, const char* name, bool integer,
                  const char* where) {
  HALCYON_CHECK(x.defined() && x.dim() == 1 && x.numel() == rows, where,
                "expected {} of shape ({},), got {}", name, rows, describe(x));
  if (integer) {
    HALCYON_CHECK(x.scalar_type() == at::kLong, where, "expected {} as int64, got {}", name,
                  c10::toString(x.scalar_type()));
    return x.detach().to(at::kCPU).contiguous();
  }
  HALCYON_CHECK(at::isFloatingType(x.scalar_type()), where, "expected {} as float32, got {}", name,
                c10::toString(x.scalar_type()));
  return x.detach().to(at::kCPU, at::kFloat).contiguous();
}

int64_t rows_of(const at::Tensor& lon, const char* where) {
  HALCYON_CHECK(lon.defined() && lon.dim() == 1, where, "expected lon of rank 1, got {}",
                describe(lon));
  return lon.numel();
}

template <typename Make>
void for_rows(const Metadata& in, int64_t rows, float* out, int64_t width, Make make) {
  constexpr const char* where = "float_metadata";
  const bool one_target = in.target_time_sec.defined() && in.target_time_sec.dim() == 0;
  const auto target = column(one_target ? in.target_time_sec.reshape({1}) : in.target_time_sec,
                             one_target ? 1 : rows, "target_time_sec", true, where);
  const auto time = column(in.time_ns, rows, "time_ns", true, where);
  const auto get = [&](const at::Tensor& x, const char* name) {
    return column(x, rows, name, false, where);
  };
  const auto lon = get(in.lon, "lon"), lat = get(in.lat, "lat"), height = get(in.height, "height"),
             pressure = get(in.pressure, "pressure"), scan = get(in.scan_angle, "scan_angle"),
             sat = get(in.sat_zenith_angle, "sat_zenith_angle"),
             sol = get(in.sol_zenith_angle, "sol_zenith_angle");
  const int64_t* targets = target.const_data_ptr<int64_t>();
  const int64_t* times = time.const_data_ptr<int64_t>();
  const auto pointer = [](const at::Tensor& x) { return x.const_data_ptr<float>(); };
  const float *x = pointer(lon), *y = pointer(lat), *h = pointer(height), *p = pointer(pressure),
              *c = pointer(scan), *a = pointer(sat), *o = pointer(sol);
  at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Row row{solar_time(x[i], times[i]),
                    days_after(times[i], targets[one_target ? 0 : i]),
                    y[i],
                    h[i],
                    p[i],
                    c[i],
                    a[i],
                    o[i]};
      make(row, out + i * width);
    }
  });
}

}  // namespace

at::Tensor local_solar_time(const at::Tensor& lon, const at::Tensor& time_ns) {
  constexpr const char* where = "local_solar_time";
  const auto rows = rows_of(lon, where);
  const auto x = column(lon, rows, "lon", false, where);
  const auto time = column(time_ns, rows, "time_ns", true, where);
  auto hours = at::empty({rows}, at::kFloat);
  float* out = hours.mutable_data_ptr<float>();
  for (int64_t i = 0; i < rows; ++i)
    out[i] = solar_time(x.const_data_ptr<float>()[i], time.const_data_ptr<int64_t>()[i]);
  return hours.to(lon.device());
}

at::Tensor float_metadata(const Metadata& in, int64_t layout) {
  HALCYON_CHECK(layout == 28 || layout == 30 || layout == 50, "float_metadata",
                "expected a layout of 28, 30 or 50, got {}", layout);
  const auto rows = rows_of(in.lon, "float_metadata");
  auto features = at::empty({rows, layout}, at::kFloat);
  float* out = features.mutable_data_ptr<float>();
  if (layout == 28) {
    for_rows(in, rows, out, layout, standard28);
  } else if (layout == 30) {
    for_rows(in, rows, out, layout, extended30);
  } else {
    for_rows(in, rows, out, layout, split50);
  }
  return features.to(in.lon.device());
}

}  // namespace halcyon::obs
