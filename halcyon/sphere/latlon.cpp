// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/latlon.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

constexpr double kRound = 1e-9;  // degrees: equal up to the rounding of a file's numbers

void check_finite(const char* axis, const std::vector<double>& values, double low, double high) {
  HALCYON_CHECK(!values.empty(), "LatLonGrid", "expected at least one {}, got none", axis);
  for (const double v : values) {
    HALCYON_CHECK(v >= low && v <= high, "LatLonGrid", "expected every {} in {}..{}, got {}", axis,
                  low, high, v);
  }
}

bool is_monotonic(const std::vector<double>& v) {
  const auto not_rising = [](double a, double b) { return !(a < b); };
  const auto not_falling = [](double a, double b) { return !(a > b); };
  return std::adjacent_find(v.begin(), v.end(), not_rising) == v.end() ||
         std::adjacent_find(v.begin(), v.end(), not_falling) == v.end();
}

// Takes out the step over 360 or the date line: every step becomes the shorter way round.
std::vector<double> unwrap(std::vector<double> lon) {
  if (is_monotonic(lon)) return lon;
  double turns = 0, before = lon.front();
  for (double& v : lon) {
    if (v - before > 180) turns -= 360;
    if (v - before < -180) turns += 360;
    before = v;
    v += turns;
  }
  return lon;
}

double span(const std::vector<double>& v) {
  return std::abs(v.back() - v.front());
}

std::vector<double> halfway(const std::vector<double>& v) {
  const size_t n = v.size();
  if (n < 2) return {};
  std::vector<double> bounds(n + 1);
  for (size_t i = 1; i < n; ++i) bounds[i] = (v[i - 1] + v[i]) / 2;
  bounds[0] = v[0] - (v[1] - v[0]) / 2;
  bounds[n] = v[n - 1] + (v[n - 1] - v[n - 2]) / 2;
  return bounds;
}

// The pole when the outermost row is less than its spacing away from it.
double outer_lat_bound(double bound, double row, double next) {
  const double pole = std::copysign(90.0, row - next);
  return std::abs(pole - row) < std::abs(row - next) - kRound ? pole : bound;
}

double radians(double degrees) {
  return degrees * (M_PI / 180);
}

// Root of the Legendre polynomial of this degree near x, by Newton's iteration.
double legendre_root(int64_t degree, double x) {
  for (int iteration = 0; iteration < 20; ++iteration) {
    double p = 1, next = x;
    for (int64_t k = 1; k < degree; ++k) {
      const double after = ((2 * k + 1) * x * next - k * p) / (k + 1);
      p = next;
      next = after;
    }
    const double change = next * (x * x - 1) / (degree * (x * next - p));
    x -= change;
    if (std::abs(change) < 1e-15) break;
  }
  return x;
}

std::vector<double> meridians(int64_t columns) {
  std::vector<double> lon(columns);
  for (int64_t i = 0; i < columns; ++i) lon[i] = 360.0 * i / columns;
  return lon;
}

}  // namespace

LatLonGrid::LatLonGrid(std::vector<double> lat, std::vector<double> lon)
    : lat_(std::move(lat)), lon_(std::move(lon)) {
  check_finite("latitude", lat_, -90, 90);
  check_finite("longitude", lon_, -720, 720);
  HALCYON_CHECK(
      is_monotonic(lat_), "LatLonGrid",
      "expected latitudes that strictly rise or fall, got {} .. {} with a turn or a repeat",
      lat_.front(), lat_.back());
  unwrapped_ = unwrap(lon_);
  HALCYON_CHECK(is_monotonic(unwrapped_) && span(unwrapped_) <= 360 + kRound, "LatLonGrid",
                "expected longitudes that strictly rise or fall and go round at most once, got "
                "{} .. {} with a turn, a repeat or more than 360 degrees",
                lon_.front(), lon_.back());

  lat_bounds_ = halfway(lat_);
  if (const size_t n = lat_.size(); n > 1) {
    auto& b = lat_bounds_;
    b.front() = std::clamp(outer_lat_bound(b.front(), lat_[0], lat_[1]), -90.0, 90.0);
    b.back() = std::clamp(outer_lat_bound(b.back(), lat_[n - 1], lat_[n - 2]), -90.0, 90.0);
  }

  lon_bounds_ = halfway(unwrapped_);
  if (const size_t n = unwrapped_.size(); n > 1) {
    auto& b = lon_bounds_;
    double widest = 0;
    for (size_t i = 1; i < n; ++i) {
      widest = std::max(widest, std::abs(unwrapped_[i] - unwrapped_[i - 1]));
    }
    const double gap = 360 - span(unwrapped_), sign = unwrapped_[1] > unwrapped_[0] ? 1 : -1;
    periodic_ = gap > kRound && gap <= 1.5 * widest;
    // end cells meet in the middle of the gap; a repeated first meridian shares its cell
    if (periodic_ || span(b) > 360) {
      b.front() = unwrapped_.front() - sign * std::max(gap, 0.0) / 2;
      b.back() = b.front() + sign * 360;
    }
  }
}

LatLonGrid LatLonGrid::regular(int64_t rows, int64_t columns, bool poles) {
  HALCYON_CHECK(rows >= 2 && columns >= 2, "LatLonGrid::regular",
                "expected at least 2 x 2 points, got {} x {}", rows, columns);
  std::vector<double> lat(rows);
  for (int64_t i = 0; i < rows; ++i) {
    lat[i] = poles ? 90 - 180.0 * i / (rows - 1) : 90 - 180.0 * (i + 0.5) / rows;
  }
  return {std::move(lat), meridians(columns)};
}

LatLonGrid LatLonGrid::gaussian(int64_t n) {
  HALCYON_CHECK(n >= 1 && n <= 8192, "LatLonGrid::gaussian", "expected n in 1..8192, got {}", n);
  std::vector<double> lat(2 * n);
  for (int64_t i = 0; i < n; ++i) {
    const double root = legendre_root(2 * n, std::cos(M_PI * (i + 0.75) / (2 * n + 0.5)));
    lat[i] = std::asin(root) / radians(1);
    lat[2 * n - 1 - i] = -lat[i];
  }
  return {std::move(lat), meridians(4 * n)};
}

const std::vector<double>& LatLonGrid::lat_bounds() const {
  HALCYON_CHECK(rows() > 1, "LatLonGrid", "expected two rows or more to have cells, got one");
  return lat_bounds_;
}

const std::vector<double>& LatLonGrid::lon_bounds() const {
  HALCYON_CHECK(columns() > 1, "LatLonGrid", "expected two columns or more to have cells, got one");
  return lon_bounds_;
}

at::Tensor LatLonGrid::areas() const {
  const auto &south = lat_bounds(), &west = lon_bounds();
  auto areas = at::empty({rows(), columns()}, at::kDouble);
  double* a = areas.mutable_data_ptr<double>();
  for (int64_t i = 0; i < rows(); ++i) {
    const double height = std::abs(std::sin(radians(south[i + 1])) - std::sin(radians(south[i])));
    for (int64_t j = 0; j < columns(); ++j)
      *a++ = height * radians(std::abs(west[j + 1] - west[j]));
  }
  return areas;
}

std::tuple<at::Tensor, at::Tensor> LatLonGrid::points() const {
  auto lon = at::empty({size()}, at::kDouble), lat = at::empty({size()}, at::kDouble);
  double* lons = lon.mutable_data_ptr<double>();
  double* lats = lat.mutable_data_ptr<double>();
  for (int64_t i = 0; i < rows(); ++i) {
    std::copy(lon_.begin(), lon_.end(), lons + i * columns());
    std::fill_n(lats + i * columns(), columns(), lat_[i]);
  }
  return {lon, lat};
}

}  // namespace halcyon
