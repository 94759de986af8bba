// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/surface_encoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/healpix_pixel.h"

namespace halcyon::assimilation {

namespace {

constexpr double kDegrees = M_PI / 180;
constexpr int kSubdivision = 10;  // levels below the token at which a place inside it is resolved

// What all observations of one analysis have in common.
struct Clock {
  double hour, year;  // of the day and the fraction of the year, in turns
};

Clock clock_of(int64_t time) {
  return {second_of_day(time) / 86400, (day_of_year(time) + 1) / 365.25};
}

void write_place(float* f, double lat, double lon, double row, double column) {
  int i = 0;
  for (const double z : {row, column}) {
    for (const double k : {0.5, 1.0, 1.5}) {
      f[i++] = static_cast<float>(std::sin(k * M_PI * z));
      f[i++] = static_cast<float>(std::cos(k * M_PI * z));
    }
  }
  f[i++] = static_cast<float>(row);
  f[i++] = static_cast<float>(column);
  f[i++] = static_cast<float>(row * row);
  f[i++] = static_cast<float>(column * column);
  f[i++] = static_cast<float>(row * column);
  f[i++] = static_cast<float>(std::sin(lat * kDegrees));
  f[i++] = static_cast<float>(std::cos(lat * kDegrees));
  f[i++] = static_cast<float>(std::sin(lon * kDegrees));
  f[i++] = static_cast<float>(std::cos(lon * kDegrees));  // 21 in all
}

void write_clock(float* f, const Clock& clock, double lon) {
  const double local = clock.hour + lon / 360;
  const double turns[] = {clock.hour, clock.year, local};
  for (int k = 0; k < 3; ++k) {
    f[2 * k] = static_cast<float>(std::sin(2 * M_PI * turns[k]));
    f[2 * k + 1] = static_cast<float>(std::cos(2 * M_PI * turns[k]));
  }
}

void write_quality(float* f, const Departure& d, double spread) {
  f[0] = static_cast<float>(d.error_sd * d.error_sd / (spread * spread));
  f[1] = std::log(d.error_sd);
  f[2] = std::log(d.climatological_sd);
  f[3] = d.error_sd / 2;
  // how old the observation is, as smooth bumps at 0, 6, 12, 18 hours, and in days
  for (int lag = 0; lag < 4; ++lag) {
    f[4 + lag] = std::max(0.0f, 1 - std::abs(d.age / 6 - static_cast<float>(lag)));
  }
  f[8] = d.age / 24;
  f[9] = f[8] * f[8];
}

}  // namespace

SurfaceEncoder::SurfaceEncoder(const Region& tokens)
    : level_(tokens.level()), tokens_(tokens.size()), index_(healpix::npix(tokens.level()), -1) {
  const auto pixels = tokens.pixels().accessor<int64_t, 1>();
  for (int64_t i = 0; i < tokens_; ++i) index_[pixels[i]] = static_cast<int32_t>(i);
  const auto [lon, lat] = tokens.centres();
  centre_lon_.assign(lon.const_data_ptr<double>(), lon.const_data_ptr<double>() + tokens_);
  centre_lat_.assign(lat.const_data_ptr<double>(), lat.const_data_ptr<double>() + tokens_);
}

SurfaceEncoder::Position SurfaceEncoder::locate(double lat, double lon) const {
  const auto fine = healpix::detail::pixel_at(level_ + kSubdivision, lon, lat);
  constexpr int64_t kSide = int64_t{1} << kSubdivision;
  const healpix::detail::FacePixel coarse{fine.face, fine.x >> kSubdivision,
                                          fine.y >> kSubdivision};
  const auto inside = [](int64_t v) { return (2 * (v & (kSide - 1)) + 1.0) / kSide - 1; };
  return {index_[healpix::detail::to_padxy(level_, coarse)], inside(fine.x), inside(fine.y)};
}

bool SurfaceEncoder::holds(double lat, double lon) const {
  return locate(lat, lon).token >= 0;
}

ObsContext SurfaceEncoder::encode(const std::vector<DepartureSet>& batch) const {
  const auto size = static_cast<int64_t>(batch.size());
  std::vector<int64_t> begin(size + 1, 0);
  for (int64_t b = 0; b < size; ++b) {
    begin[b + 1] = begin[b] + static_cast<int64_t>(batch[b].observations.size()) + tokens_;
  }
  const int64_t rows = begin[size];
  auto value = at::zeros({rows});
  auto features = at::zeros({rows, kFeatures});
  auto channel = at::full({rows}, int64_t{place}, at::kLong);
  auto pixel = at::empty({rows}, at::kLong);
  auto* v = value.mutable_data_ptr<float>();
  auto* f = features.mutable_data_ptr<float>();
  auto* c = channel.mutable_data_ptr<int64_t>();
  auto* p = pixel.mutable_data_ptr<int64_t>();
  at::parallel_for(0, size, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const auto clock = clock_of(batch[b].time);
      int64_t row = begin[b];
      for (const auto& d : batch[b].observations) {
        const auto position = locate(d.lat, d.lon);
        HALCYON_CHECK(position.token >= 0, "encode",
                      "expected observations in the region, got {}, {}", d.lat, d.lon);
        const double spread = std::hypot(d.error_sd, d.climatological_sd);
        v[row] = static_cast<float>(d.value / spread);
        float* out = f + row * kFeatures;
        write_place(out, d.lat, d.lon, position.row, position.column);
        write_clock(out + 21, clock, d.lon);
        write_quality(out + 27, d, spread);
        c[row] = temperature;
        p[row++] = b * tokens_ + position.token;
      }
      for (int64_t token = 0; token < tokens_; ++token, ++row) {
        float* out = f + row * kFeatures;
        write_place(out, centre_lat_[token], centre_lon_[token], 0, 0);
        write_clock(out + 21, clock, centre_lon_[token]);
        out[37] = 1;
        p[row] = b * tokens_ + token;
      }
    }
  });
  const auto none = at::zeros({rows}, at::kLong);
  return prepare_obs_context(value, features, none, channel, none, pixel, size * tokens_);
}

}  // namespace halcyon::assimilation
