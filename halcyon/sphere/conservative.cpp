// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "halcyon/sphere/csr_builder.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/pixel_plane.h"
#include "halcyon/sphere/regrid.h"

namespace halcyon {
namespace {

using detail::CsrBuilder;
using healpix::Order;

// Cells of one axis with ascending borders; place(a) is the index in the grid's own direction.
struct Axis {
  std::vector<double> bounds;
  bool falling;

  explicit Axis(std::vector<double> b) : bounds(std::move(b)), falling(bounds.back() < bounds[0]) {
    if (falling) std::reverse(bounds.begin(), bounds.end());
  }

  int64_t cells() const { return static_cast<int64_t>(bounds.size()) - 1; }
  int64_t place(int64_t a) const { return falling ? cells() - 1 - a : a; }
  // The first cell that reaches beyond x.
  int64_t first_beyond(double x) const {
    const auto after = std::upper_bound(bounds.begin(), bounds.end(), x);
    return std::max<int64_t>(after - bounds.begin() - 1, 0);
  }
};

// f(turn, cell) for each cell that [low, high], degrees, meets when moved by 360 degrees any number
// of times.
template <class F>
void for_each_longitude(const Axis& lon, double low, double high, const F& f) {
  const auto first = std::llround(std::ceil((lon.bounds.front() - high) / 360));
  const auto last = std::llround(std::floor((lon.bounds.back() - low) / 360));
  for (auto turns = first; turns <= last; ++turns) {
    const double turn = 360.0 * static_cast<double>(turns);
    for (int64_t j = lon.first_beyond(low + turn); j < lon.cells() && lon.bounds[j] < high + turn;
         ++j) {
      f(turn, j);
    }
  }
}

// Row by row the steradians that one pixel shares with each cell of the grid.
class PixelCells {
 public:
  explicit PixelCells(const LatLonGrid& grid) : lon_(grid.lon_bounds()), lat_(heights(grid)) {}

  void add_row(CsrBuilder& rows, int level, int64_t padxy) const {
    const auto pixel = detail::plane_pixel(level, healpix::detail::from_padxy(level, padxy));
    const double south = pixel.w - pixel.half, north = pixel.w + pixel.half;
    // what rounding leaves of cells that touch
    const double nothing = 1e-13 * pixel.half * pixel.half;
    for (int64_t i = lat_.first_beyond(south); i < lat_.cells() && lat_.bounds[i] < north; ++i) {
      const double low = std::max(lat_.bounds[i], south),
                   high = std::min(lat_.bounds[i + 1], north);
      if (low >= high) continue;
      const auto reach = detail::extent(pixel, low, high);
      const auto share = [&](double turn, int64_t j) {
        const double west = lon_.bounds[j] - turn - pixel.meridian;
        const double east = lon_.bounds[j + 1] - turn - pixel.meridian;
        const double area = detail::shared_area(pixel, west, east, low, high);
        if (area > nothing) rows.add(lat_.place(i) * lon_.cells() + lon_.place(j), area);
      };
      for_each_longitude(lon_, pixel.meridian + reach.west, pixel.meridian + reach.east, share);
    }
    rows.end_row();
  }

 private:
  static Axis heights(const LatLonGrid& grid) {
    auto bounds = grid.lat_bounds();
    for (double& b : bounds) b = detail::height_of(b);
    return Axis(std::move(bounds));
  }

  Axis lon_, lat_;
};

// (region.size, grid.size) areas of overlap, in blocks of rows so that threads do not change them.
CsrData shared_areas(const Region& region, const LatLonGrid& grid) {
  constexpr int64_t kBlock = 1024;
  const PixelCells cells(grid);
  const int64_t* pixels = region.pixels().const_data_ptr<int64_t>();
  const int64_t blocks = (region.size() + kBlock - 1) / kBlock;
  std::vector<CsrBuilder> parts(blocks, CsrBuilder(grid.size()));
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t last = std::min((b + 1) * kBlock, region.size());
      for (int64_t i = b * kBlock; i < last; ++i) {
        cells.add_row(parts[b], region.level(), pixels[i]);
      }
    }
  });
  CsrBuilder all(grid.size());
  for (const auto& part : parts) all.append(part);
  return std::move(all).finish();
}

// (fine.size, coarse.size): one where the coarse pixel holds the fine one.
CsrData kinship(const Region& fine, const Region& coarse) {
  const int up = fine.level() - coarse.level();
  const auto parents = coarse.index_of(healpix::parent(fine.level(), fine.pixels(), up));
  const int64_t* p = parents.const_data_ptr<int64_t>();
  CsrBuilder rows(coarse.size());
  for (int64_t i = 0; i < fine.size(); ++i) {
    if (p[i] >= 0) rows.add(p[i], 1);
    rows.end_row();
  }
  return std::move(rows).finish();
}

struct Share {
  int64_t cell;
  double length;
};

// For each cell of `to`, in its own direction, what it shares with the cells of `from`.
std::vector<std::vector<Share>> shared_latitudes(const LatLonGrid& from, const LatLonGrid& to) {
  const auto sines = [](std::vector<double> bounds) {
    for (double& b : bounds) b = std::sin(b * (M_PI / 180));
    return Axis(std::move(bounds));
  };
  const Axis source = sines(from.lat_bounds()), target = sines(to.lat_bounds());
  std::vector<std::vector<Share>> shares(target.cells());
  for (int64_t a = 0; a < target.cells(); ++a) {
    const double low = target.bounds[a], high = target.bounds[a + 1];
    for (int64_t i = source.first_beyond(low); i < source.cells() && source.bounds[i] < high; ++i) {
      const double length = std::min(high, source.bounds[i + 1]) - std::max(low, source.bounds[i]);
      if (length > 1e-12 * (high - low))
        shares[target.place(a)].push_back({source.place(i), length});
    }
  }
  return shares;
}

std::vector<std::vector<Share>> shared_longitudes(const LatLonGrid& from, const LatLonGrid& to) {
  const Axis source(from.lon_bounds()), target(to.lon_bounds());
  std::vector<std::vector<Share>> shares(target.cells());
  for (int64_t a = 0; a < target.cells(); ++a) {
    const double low = target.bounds[a], high = target.bounds[a + 1];
    for_each_longitude(source, low, high, [&](double turn, int64_t j) {
      const double length =
          std::min(high + turn, source.bounds[j + 1]) - std::max(low + turn, source.bounds[j]);
      if (length > 1e-12 * (high - low))
        shares[target.place(a)].push_back({source.place(j), length});
    });
  }
  return shares;
}

CsrData shared_areas(const LatLonGrid& from, const LatLonGrid& to) {
  const auto lat = shared_latitudes(from, to), lon = shared_longitudes(from, to);
  CsrBuilder rows(from.size());
  for (const auto& y : lat) {
    for (const auto& x : lon) {
      for (const Share& row : y) {
        for (const Share& column : x) {
          rows.add(row.cell * from.columns() + column.cell, row.length * column.length);
        }
      }
      rows.end_row();
    }
  }
  return std::move(rows).finish();
}

// Areas of overlap -> means.
SparseMatrix means(CsrData m) {
  for (int64_t r = 0; r < m.rows; ++r) {
    double sum = 0;
    for (int64_t k = m.row_start[r]; k < m.row_start[r + 1]; ++k) sum += m.weight[k];
    for (int64_t k = m.row_start[r]; k < m.row_start[r + 1]; ++k) m.weight[k] /= sum;
  }
  return SparseMatrix(std::move(m));
}

// (to, from) areas of overlap up to a common factor.
struct Overlaps {
  CsrData operator()(const LatLonGrid& from, const LatLonGrid& to) const {
    return shared_areas(from, to);
  }
  CsrData operator()(const LatLonGrid& from, const Region& to) const {
    return shared_areas(to, from);
  }
  CsrData operator()(const Region& from, const LatLonGrid& to) const {
    return transpose(shared_areas(from, to));
  }
  CsrData operator()(const Region& from, const Region& to) const {
    return from.level() >= to.level() ? transpose(kinship(from, to)) : kinship(to, from);
  }
};

}  // namespace

SparseMatrix conservative(const Grid& from, const Grid& to) {
  return means(std::visit(Overlaps{}, from, to));
}

}  // namespace halcyon
