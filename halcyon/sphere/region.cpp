// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/region.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>

#include <algorithm>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/pixel_plane.h"

namespace halcyon {
namespace {

using healpix::detail::FacePixel;

constexpr int kMaxUp = healpix::kMaxFieldLevel;
constexpr int64_t kMaxSize = int64_t{12} << 2 * kMaxUp;

void check_level(const char* operation, int level) {
  HALCYON_CHECK(level >= 0 && level <= healpix::kMaxLevel, operation,
                "expected a level in 0..{}, got {}", healpix::kMaxLevel, level);
}

void check_size(const char* operation, int64_t size) {
  HALCYON_CHECK(size <= kMaxSize, operation,
                "expected a region of at most {} pixels, got more: take a coarser level", kMaxSize);
}

at::Tensor as_tensor(const std::vector<int64_t>& pixels) {
  auto tensor = at::empty({static_cast<int64_t>(pixels.size())}, at::kLong);
  std::copy(pixels.begin(), pixels.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

void check_box(const Box& box) {
  HALCYON_CHECK(box.south >= -90 && box.north <= 90 && box.south <= box.north, "Region::touching",
                "expected -90 <= south <= north <= 90, got south {} north {}", box.south,
                box.north);
  HALCYON_CHECK(std::abs(box.west) <= 720 && std::abs(box.east) <= 720, "Region::touching",
                "expected west and east in -720..720, got {} and {}", box.west, box.east);
}

// Descends from the faces, leaving out what the box does not touch.
class Collector {
 public:
  Collector(int level, std::vector<int64_t>& pixels) : level_(level), pixels_(pixels) {}

  void collect(const Box& box) {
    box_ = detail::plane_box(box);
    for (int64_t face = 0; face < 12; ++face) visit(0, {face, 0, 0});
  }

 private:
  void visit(int at, const FacePixel& p) {
    const auto overlap = detail::overlap(detail::plane_pixel(at, p), box_);
    if (overlap == detail::Overlap::none) return;
    if (at == level_ || overlap == detail::Overlap::all) return add_descendants(level_ - at, p);
    for (int64_t child = 0; child < 4; ++child) {
      visit(at + 1, {p.face, 2 * p.x + child % 2, 2 * p.y + child / 2});
    }
  }

  void add_descendants(int up, const FacePixel& p) {
    check_size(
        "Region::touching",
        up > kMaxUp ? kMaxSize + 1 : (int64_t{1} << 2 * up) + static_cast<int64_t>(pixels_.size()));
    const int64_t width = int64_t{1} << up;
    for (int64_t x = p.x << up; x < (p.x << up) + width; ++x) {
      for (int64_t y = p.y << up; y < (p.y << up) + width; ++y) {
        pixels_.push_back(healpix::detail::to_padxy(level_, {p.face, x, y}));
      }
    }
  }

  int level_;
  std::vector<int64_t>& pixels_;
  detail::PlaneBox box_{};
};

void sort_unique(std::vector<int64_t>& pixels) {
  std::sort(pixels.begin(), pixels.end());
  pixels.erase(std::unique(pixels.begin(), pixels.end()), pixels.end());
}

// The boxes of the runs of set cells along each row.
std::vector<Box> boxes_of(const LatLonGrid& grid, const at::Tensor& mask) {
  const auto &lat = grid.lat_bounds(), &lon = grid.lon_bounds();
  const bool* set = mask.const_data_ptr<bool>();
  const int64_t columns = grid.columns();
  std::vector<Box> boxes;
  for (int64_t i = 0; i < grid.rows(); ++i) {
    const bool* row = set + i * columns;
    for (int64_t begin = 0, end; begin < columns; begin = end) {
      end = begin + 1;
      if (!row[begin]) continue;
      while (end < columns && row[end]) ++end;
      const auto [south, north] = std::minmax(lat[i], lat[i + 1]);
      const auto [west, east] = std::minmax(lon[begin], lon[end]);
      boxes.push_back({west, east, south, north});
    }
  }
  return boxes;
}

}  // namespace

Region Region::global(int level) {
  HALCYON_CHECK(level >= 0 && level <= healpix::kMaxFieldLevel, "Region::global",
                "expected a level in 0..{}, got {}", healpix::kMaxFieldLevel, level);
  return {level, at::arange(healpix::npix(level), at::kLong)};
}

Region Region::of_pixels(int level, const std::vector<int64_t>& pixels) {
  return of_pixels(level, as_tensor(pixels));
}

Region Region::of_pixels(int level, const at::Tensor& pixels) {
  check_level("Region", level);
  HALCYON_CHECK(pixels.defined() && pixels.dim() == 1 && pixels.numel() > 0 &&
                    c10::isIntegralType(pixels.scalar_type(), /*includeBool=*/false),
                "Region", "expected a 1-D list of one integer pixel or more, got {}",
                describe(pixels));
  auto list = pixels.to(at::kCPU, at::kLong).contiguous().clone();
  const int64_t* p = list.const_data_ptr<int64_t>();
  const int64_t size = list.numel(), last = healpix::npix(level) - 1;
  for (int64_t i = 0; i < size; ++i) {
    HALCYON_CHECK(p[i] >= 0 && p[i] <= last, "Region",
                  "expected pixels in 0..{} at level {}, got {}", last, level, p[i]);
    HALCYON_CHECK(
        i == 0 || p[i - 1]<p[i], "Region",
                           "expected pixels in ascending order without repeats, got {} after {}",
                           p[i], i> 0
            ? p[i - 1]
            : 0);
  }
  return {level, std::move(list)};
}

Region Region::touching(int level, const Box& box) {
  check_level("Region::touching", level);
  check_box(box);
  std::vector<int64_t> pixels;
  Collector(level, pixels).collect(box);
  std::sort(pixels.begin(), pixels.end());
  return {level, as_tensor(pixels)};
}

Region Region::touching(int level, const LatLonGrid& grid, const at::Tensor& mask) {
  check_level("Region::touching", level);
  HALCYON_CHECK(mask.defined() && mask.scalar_type() == at::kBool && mask.numel() == grid.size() &&
                    (mask.dim() == 1 || (mask.dim() == 2 && mask.size(0) == grid.rows())),
                "Region::touching", "expected a bool mask of shape [{}, {}], got {}", grid.rows(),
                grid.columns(), describe(mask));
  std::vector<int64_t> pixels;
  Collector collector(level, pixels);
  size_t tidied = 0;
  for (const Box& box : boxes_of(grid, mask.to(at::kCPU).contiguous())) {
    collector.collect(box);
    // neighbouring rows find the same pixels again; keep the list near its final size
    if (pixels.size() > 2 * tidied + (1 << 20)) {
      sort_unique(pixels);
      tidied = pixels.size();
    }
  }
  HALCYON_CHECK(!pixels.empty(), "Region::touching", "expected a mask with a cell set, got none");
  sort_unique(pixels);
  return {level, as_tensor(pixels)};
}

bool Region::is_global() const {
  return size() == healpix::npix(level_);
}

Region Region::refined(int up) const {
  HALCYON_CHECK(up >= 0 && level_ + up <= healpix::kMaxLevel, "Region::refined",
                "expected up in 0..{} at level {}, got {}", healpix::kMaxLevel - level_, level_,
                up);
  if (up == 0) return *this;
  check_size("Region::refined", up > kMaxUp ? kMaxSize + 1 : size() << 2 * up);
  if (is_global()) return global(level_ + up);
  const int64_t *p = pixels_.const_data_ptr<int64_t>(), fine = level_ + up;
  const int64_t width = int64_t{1} << up, last_column = (int64_t{1} << level_) - 1;
  std::vector<int64_t> children;
  children.reserve(size() << 2 * up);
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t face_and_row = p[i] >> level_, column = p[i] & last_column;
    for (int64_t row = face_and_row << up; row < (face_and_row << up) + width; ++row) {
      const int64_t first = (row << fine) + (column << up);
      for (int64_t child = first; child < first + width; ++child) children.push_back(child);
    }
  }
  std::sort(children.begin(), children.end());
  return {static_cast<int>(fine), as_tensor(children)};
}

at::Tensor Region::index_of(const at::Tensor& pixels) const {
  HALCYON_CHECK(
      pixels.defined() && c10::isIntegralType(pixels.scalar_type(), /*includeBool=*/false),
      "Region::index_of", "expected integer pixels, got {}", describe(pixels));
  const auto wanted = pixels.to(at::kCPU, at::kLong).contiguous();
  auto index = at::empty_like(wanted);
  const int64_t *w = wanted.const_data_ptr<int64_t>(), *begin = pixels_.const_data_ptr<int64_t>();
  const int64_t *end = begin + size(), total = size();
  int64_t* out = index.mutable_data_ptr<int64_t>();
  const bool everywhere = is_global();
  at::parallel_for(0, wanted.numel(), 8192, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      if (everywhere) {
        out[i] = w[i] >= 0 && w[i] < total ? w[i] : -1;
        continue;
      }
      const int64_t* found = std::lower_bound(begin, end, w[i]);
      out[i] = found != end && *found == w[i] ? found - begin : -1;
    }
  });
  return index.to(pixels.device());
}

at::Tensor Region::children_index(int up) const {
  const Region fine = refined(up);
  const int64_t *p = pixels_.const_data_ptr<int64_t>(),
                *begin = fine.pixels_.const_data_ptr<int64_t>();
  const int64_t width = int64_t{1} << up, last_column = (int64_t{1} << level_) - 1;
  auto index = at::empty({size(), width * width}, at::kLong);
  int64_t* out = index.mutable_data_ptr<int64_t>();
  at::parallel_for(0, size(), 1024, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t face_and_row = p[i] >> level_, column = p[i] & last_column;
      for (int64_t r = 0; r < width; ++r) {
        const int64_t first = (((face_and_row << up) + r) << (level_ + up)) + (column << up);
        // a pixel's children in one row are neighbours in the list as well
        const int64_t place = std::lower_bound(begin, begin + fine.size(), first) - begin;
        for (int64_t c = 0; c < width; ++c) out[(i * width + r) * width + c] = place + c;
      }
    }
  });
  return index;
}

std::tuple<at::Tensor, at::Tensor> Region::centres() const {
  return healpix::pix2ang(level_, pixels_, healpix::Order::pad_xy);
}

bool Region::operator==(const Region& other) const {
  return level_ == other.level_ && at::equal(pixels_, other.pixels_);
}

}  // namespace halcyon
