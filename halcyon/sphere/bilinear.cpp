// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/sphere/csr_builder.h"
#include "halcyon/sphere/healpix_pixel.h"
#include "halcyon/sphere/pixel_plane.h"
#include "halcyon/sphere/regrid.h"

namespace halcyon {
namespace {

using detail::CsrBuilder;

struct Points {
  at::Tensor lon, lat;
  int64_t size;
  const double *lons, *lats;
};

Points checked_points(const at::Tensor& lon, const at::Tensor& lat) {
  HALCYON_CHECK(lon.defined() && lat.defined() && lon.dim() == 1 && lat.dim() == 1 &&
                    lon.size(0) == lat.size(0),
                "bilinear_to_points",
                "expected lon and lat as two 1-D tensors of one length, got {} and {}",
                describe(lon), describe(lat));
  HALCYON_CHECK(lon.is_floating_point() && lat.is_floating_point(), "bilinear_to_points",
                "expected floating-point lon and lat, got {} and {}",
                c10::toString(lon.scalar_type()), c10::toString(lat.scalar_type()));
  Points p;
  p.lon = lon.detach().to(at::kCPU, at::kDouble).contiguous();
  p.lat = lat.detach().to(at::kCPU, at::kDouble).contiguous();
  p.size = lon.size(0);
  p.lons = p.lon.const_data_ptr<double>();
  p.lats = p.lat.const_data_ptr<double>();
  for (int64_t i = 0; i < p.size; ++i) {
    HALCYON_CHECK(
        std::abs(p.lats[i]) <= 90 && std::isfinite(p.lons[i]), "bilinear_to_points",
        "expected finite lon and lat in -90..90 degrees, got lon {} lat {} at position {}",
        p.lons[i], p.lats[i], i);
  }
  return p;
}

// Between two places of an axis: value = (1 - part) * [first] + part * [second].
struct Between {
  int64_t first, second;
  double part;
};

// Where x lies on a monotonic axis, when between its ends.
std::optional<Between> find(const std::vector<double>& axis, double x) {
  const bool falling = axis.back() < axis.front();
  const auto [low, high] = std::minmax(axis.front(), axis.back());
  if (!(x >= low && x <= high)) return std::nullopt;
  const auto after = falling ? std::upper_bound(axis.begin(), axis.end(), x, std::greater<>())
                             : std::upper_bound(axis.begin(), axis.end(), x);
  const int64_t second = after - axis.begin(), last = static_cast<int64_t>(axis.size()) - 1;
  if (second > last) return Between{last, last, 0};
  const int64_t first = second - 1;
  return Between{first, second, (x - axis[first]) / (axis[second] - axis[first])};
}

// The nearer end of an axis, when x lies within the half cell outside it.
std::optional<Between> find_edge(const std::vector<double>& axis, const std::vector<double>& bounds,
                                 double x) {
  if (axis.size() < 2 || !find(bounds, x)) return std::nullopt;
  const bool at_front = std::abs(x - axis.front()) < std::abs(x - axis.back());
  const int64_t end = at_front ? 0 : static_cast<int64_t>(axis.size()) - 1;
  return Between{end, end, 0};
}

// x + 360 k with the smallest k for which it is not below base.
double turned_above(double x, double base) {
  const double turned = x - 360 * std::floor((x - base) / 360);
  return turned < base ? base : turned;  // rounding
}

class LatLonInterpolation {
 public:
  explicit LatLonInterpolation(const LatLonGrid& grid) : grid_(grid) {
    const auto& lon = grid.unwrapped_lon();
    // a closing entry makes the gap of a periodic axis like the others
    lon_ = lon;
    if (grid.periodic()) lon_.push_back(lon.front() + std::copysign(360, lon[1] - lon[0]));
    round_ = std::abs(lon_.back() - lon_.front()) >= 360 - 1e-9;
    base_ = std::min(lon_.front(), lon_.back());
  }

  void add_row(CsrBuilder& rows, double lon, double lat) const {
    const auto x = longitude(lon);
    if (x) add_latitude(rows, *x, lat);
    rows.end_row();
  }

 private:
  std::optional<Between> longitude(double lon) const {
    if (const auto inside = find(lon_, turned_above(lon, base_))) {
      return Between{inside->first % grid_.columns(), inside->second % grid_.columns(),
                     inside->part};
    }
    if (grid_.columns() < 2) return std::nullopt;
    const auto& bounds = grid_.lon_bounds();
    const double low = std::min(bounds.front(), bounds.back());
    return find_edge(grid_.unwrapped_lon(), bounds, turned_above(lon, low));
  }

  void add_latitude(CsrBuilder& rows, const Between& x, double lat) const {
    if (const auto y = find(grid_.lat(), lat)) {
      add_two(rows, y->first, x, 1 - y->part);
      add_two(rows, y->second, x, y->part);
      return;
    }
    if (grid_.rows() < 2) return;
    const auto y = find_edge(grid_.lat(), grid_.lat_bounds(), lat);
    if (!y) return;
    const auto& bounds = grid_.lat_bounds();
    const double pole = std::abs(y->first == 0 ? bounds.front() : bounds.back());
    if (!round_ || pole != 90) return add_two(rows, y->first, x, 1);
    const double row = std::abs(grid_.lat()[y->first]), part = (std::abs(lat) - row) / (90 - row);
    add_two(rows, y->first, x, 1 - part);
    const auto count = static_cast<double>(grid_.columns());
    for (int64_t j = 0; j < grid_.columns(); ++j) {
      rows.add(y->first * grid_.columns() + j, part / count);
    }
  }

  void add_two(CsrBuilder& rows, int64_t row, const Between& x, double weight) const {
    rows.add(row * grid_.columns() + x.first, weight * (1 - x.part));
    rows.add(row * grid_.columns() + x.second, weight * x.part);
  }

  const LatLonGrid& grid_;
  std::vector<double> lon_;
  bool round_;
  double base_;
};

// Pixels in ring order with their weights; at most two for each of two rings, or the four at a
// pole.
class RingStencil {
 public:
  RingStencil(int level, double lon, double lat) : level_(level) {
    const int64_t n = int64_t{1} << level;
    const double colatitude = (90 - lat) * (M_PI / 180);
    // heights fall by 1 / n from ring to ring
    const double rings_south = static_cast<double>(n) * (2 - detail::height_of(lat));
    const int64_t above = std::clamp<int64_t>(static_cast<int64_t>(rings_south), 0, 4 * n - 1);
    const double top = healpix::detail::ring_colatitude(level, above);
    const double bottom = healpix::detail::ring_colatitude(level, above + 1);
    const double part = std::clamp((colatitude - top) / (bottom - top), 0.0, 1.0);
    const double turn = (lon - 360 * std::floor(lon / 360)) / 360;
    add_ring(above, turn, 1 - part);
    add_ring(above + 1, turn, part);
  }

  template <class F>
  void for_each(const F& f) const {
    for (int i = 0; i < size_; ++i) f(pixel_[i], weight_[i]);
  }

 private:
  void add_ring(int64_t i, double turn, double weight) {
    const int64_t south_pole = int64_t{4} << level_;
    if (i == 0 || i == south_pole) {
      const int64_t start = i == 0 ? 0 : healpix::npix(level_) - 4;
      for (int64_t k = 0; k < 4; ++k) add(start + k, weight / 4);
      return;
    }
    const auto ring = healpix::detail::ring(level_, i);
    const double place = turn * static_cast<double>(ring.count) - (ring.half ? 0.5 : 0);
    const double west = std::floor(place), part = place - west;
    const int64_t j = (static_cast<int64_t>(west) + ring.count) % ring.count;
    add(ring.start + j, weight * (1 - part));
    add(ring.start + (j + 1) % ring.count, weight * part);
  }

  void add(int64_t pixel, double weight) {
    pixel_[size_] = pixel;
    weight_[size_++] = weight;
  }

  int level_, size_ = 0;
  std::array<int64_t, 8> pixel_{};
  std::array<double, 8> weight_{};
};

// Places of single pixels in a region, without a tensor around each.
class Lookup {
 public:
  explicit Lookup(const Region& region)
      : pixels_(region.pixels().const_data_ptr<int64_t>()),
        size_(region.size()),
        global_(region.is_global()) {}

  int64_t operator()(int64_t pixel) const {
    if (global_) return pixel;
    const int64_t* found = std::lower_bound(pixels_, pixels_ + size_, pixel);
    return found != pixels_ + size_ && *found == pixel ? found - pixels_ : -1;
  }

 private:
  const int64_t* pixels_;
  int64_t size_;
  bool global_;
};

}  // namespace

SparseMatrix bilinear_to_points(const LatLonGrid& grid, const at::Tensor& lon,
                                const at::Tensor& lat) {
  const Points points = checked_points(lon, lat);
  const LatLonInterpolation interpolation(grid);
  CsrBuilder rows(grid.size());
  for (int64_t i = 0; i < points.size; ++i) {
    interpolation.add_row(rows, points.lons[i], points.lats[i]);
  }
  return SparseMatrix(std::move(rows).finish());
}

SparseMatrix bilinear_to_points(const Region& region, const at::Tensor& lon,
                                const at::Tensor& lat) {
  using namespace healpix::detail;
  const Points points = checked_points(lon, lat);
  const Lookup place(region);
  const int level = region.level();
  CsrBuilder rows(region.size());
  for (int64_t i = 0; i < points.size; ++i) {
    double present = 0;
    std::array<int64_t, 8> places{};
    std::array<double, 8> weights{};
    int count = 0;
    RingStencil(level, points.lons[i], points.lats[i]).for_each([&](int64_t ring, double weight) {
      const int64_t at = place(to_padxy(level, from_ring(level, ring)));
      if (at < 0 || weight == 0) return;
      places[count] = at;
      weights[count++] = weight;
      present += weight;
    });
    for (int k = 0; k < count; ++k) rows.add(places[k], weights[k] / present);
    if (count == 0) {
      const auto own = pixel_at(level, points.lons[i], points.lats[i]);
      if (const int64_t at = place(to_padxy(level, own)); at >= 0) rows.add(at, 1);
    }
    rows.end_row();
  }
  return SparseMatrix(std::move(rows).finish());
}

SparseMatrix bilinear(const Grid& from, const Grid& to) {
  const auto [lon, lat] = std::holds_alternative<Region>(to) ? std::get<Region>(to).centres()
                                                             : std::get<LatLonGrid>(to).points();
  // structured bindings cannot be captured
  const auto &lons = lon, &lats = lat;
  return std::visit([&](const auto& grid) { return bilinear_to_points(grid, lons, lats); }, from);
}

}  // namespace halcyon
