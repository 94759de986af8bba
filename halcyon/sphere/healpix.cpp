// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healpix.h"

#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/broadcast_tensors.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/result_type.h>

#include <atomic>
#include <cmath>
#include <string>

#include "halcyon/base/error.h"
#include "halcyon/sphere/healda_pixels.h"
#include "halcyon/sphere/healpix_pixel.h"

namespace halcyon::healpix {
namespace {

constexpr int64_t kGrain = 8192;  // pixels a task

void check_level(const char* operation, int level, int max = kMaxLevel) {
  HALCYON_CHECK(level >= 0 && level <= max, operation, "expected a level in 0..{}, got {}", max,
                level);
}

// The smallest index for which bad(i) holds, or size.
template <class Bad>
int64_t first_bad(int64_t size, const Bad& bad) {
  std::atomic<int64_t> first{size};
  at::parallel_for(0, size, 4 * kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (!bad(i)) [[likely]]
        continue;
      int64_t known = first.load();
      while (i < known && !first.compare_exchange_weak(known, i)) {
      }
      return;
    }
  });
  return first;
}

// The pixel numbers as contiguous int64 on the CPU, all in range.
at::Tensor checked_pixels(const char* operation, int level, const at::Tensor& pix) {
  check_level(operation, level);
  HALCYON_CHECK(pix.defined(), operation, "expected pixels, got an undefined tensor");
  HALCYON_CHECK(c10::isIntegralType(pix.scalar_type(), /*includeBool=*/false), operation,
                "expected integer pixels, got {}", c10::toString(pix.scalar_type()));
  auto pixels = pix.to(at::kCPU, at::kLong).contiguous();
  const int64_t* p = pixels.const_data_ptr<int64_t>();
  const auto total = static_cast<uint64_t>(npix(level));
  const int64_t bad =
      first_bad(pixels.numel(), [&](int64_t i) { return static_cast<uint64_t>(p[i]) >= total; });
  HALCYON_CHECK(bad == pixels.numel(), operation, "expected pixels in 0..{} at level {}, got {}",
                total - 1, level, p[bad]);
  return pixels;
}

// out[i] = f(pix[i]) in parallel; pix is contiguous int64.
template <class F>
at::Tensor map_pixels(const at::Tensor& pix, const F& f) {
  auto out = at::empty_like(pix);
  const int64_t* from = pix.const_data_ptr<int64_t>();
  int64_t* to = out.mutable_data_ptr<int64_t>();
  at::parallel_for(0, pix.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = f(from[i]);
  });
  return out;
}

// Real numbers on the CPU; whole numbers become float64.
at::Tensor as_coordinates(const char* name, const at::Tensor& t) {
  HALCYON_CHECK(t.defined(), "ang2pix", "expected {}, got an undefined tensor", name);
  HALCYON_CHECK(!t.is_complex() && t.scalar_type() != at::kBool, "ang2pix",
                "expected {} as real numbers, got {}", name, c10::toString(t.scalar_type()));
  return t.detach().to(at::kCPU, t.is_floating_point() ? t.scalar_type() : at::kDouble);
}

// Contiguous, in one dtype and one shape, all on the sphere.
struct Points {
  at::Tensor lon, lat;
};

template <class T>
void check_on_sphere(const Points& points) {
  const T* lons = points.lon.const_data_ptr<T>();
  const T* lats = points.lat.const_data_ptr<T>();
  const int64_t size = points.lon.numel();
  const int64_t bad = first_bad(
      size, [&](int64_t i) { return !(std::abs(lats[i]) <= 90) || !std::isfinite(lons[i]); });
  HALCYON_CHECK(bad == size, "ang2pix",
                "expected finite lon and lat in -90..90 degrees, got lon {} lat {} at position {}",
                lons[bad], lats[bad], bad);
}

Points points_of(const at::Tensor& lon, const at::Tensor& lat, at::ScalarType dtype) {
  const auto both = at::broadcast_tensors({lon.to(dtype), lat.to(dtype)});
  Points points{both[0].contiguous(), both[1].contiguous()};
  if (dtype == at::kFloat) {
    check_on_sphere<float>(points);
  } else {
    check_on_sphere<double>(points);
  }
  return points;
}

template <class T>
at::Tensor standard_pixels(int level, const Points& points, Order order) {
  const T* lons = points.lon.const_data_ptr<T>();
  const T* lats = points.lat.const_data_ptr<T>();
  auto out = at::empty(points.lon.sizes(), at::kLong);
  int64_t* pix = out.mutable_data_ptr<int64_t>();
  at::parallel_for(0, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pix[i] = detail::encode(order, level, detail::pixel_at(level, lons[i], lats[i]));
    }
  });
  return out;
}

// The dtype that the HealDA datapipe computes in: half precision as float32.
at::ScalarType healda_type(const at::Tensor& lon, const at::Tensor& lat) {
  const auto at_least_float = [](const at::Tensor& t) {
    return t.element_size() < 4 ? t.to(at::kFloat) : t;
  };
  return at::result_type(at_least_float(lon), at_least_float(lat));
}

}  // namespace

Order parse_order(std::string_view name) {
  for (const Order order : {Order::nest, Order::ring, Order::pad_xy}) {
    if (name == name_of(order)) return order;
  }
  throw_error(ErrorKind::argument, "healpix",
              fmt::format("expected the order nest, ring or pad_xy, got \"{}\"", name));
}

std::string_view name_of(Order order) {
  switch (order) {
    case Order::nest:
      return "nest";
    case Order::ring:
      return "ring";
    case Order::pad_xy:
      break;
  }
  return "pad_xy";
}

Rule parse_rule(std::string_view name) {
  for (const Rule rule : {Rule::standard, Rule::healda}) {
    if (name == name_of(rule)) return rule;
  }
  throw_error(ErrorKind::argument, "healpix",
              fmt::format("expected the rule standard or healda, got \"{}\"", name));
}

std::string_view name_of(Rule rule) {
  return rule == Rule::healda ? "healda" : "standard";
}

int64_t npix(int level) {
  check_level("npix", level);
  return int64_t{12} << 2 * level;
}

int level_of(int64_t pixels) {
  int level = 0;
  while (level < kMaxLevel && npix(level) < pixels) ++level;
  HALCYON_CHECK(npix(level) == pixels, "healpix",
                "expected a number of pixels of the form 12 * 4^level, got {}", pixels);
  return level;
}

at::Tensor ang2pix(int level, const at::Tensor& lon, const at::Tensor& lat, Order order,
                   Rule rule) {
  check_level("ang2pix", level);
  const auto lons = as_coordinates("lon", lon), lats = as_coordinates("lat", lat);
  HALCYON_CHECK(at::are_expandable(lons.sizes(), lats.sizes()), "ang2pix",
                "expected lon and lat that broadcast, got shapes [{}] and [{}]",
                fmt::join(lons.sizes(), ", "), fmt::join(lats.sizes(), ", "));
  if (rule == Rule::healda) {
    const auto points = points_of(lons, lats, healda_type(lons, lats));
    return detail::healda_pixels(level, points.lon, points.lat, order).to(lon.device());
  }
  if (lons.scalar_type() == at::kFloat && lats.scalar_type() == at::kFloat) {
    const auto points = points_of(lons, lats, at::kFloat);
    return standard_pixels<float>(level, points, order).to(lon.device());
  }
  const auto points = points_of(lons, lats, at::kDouble);
  return standard_pixels<double>(level, points, order).to(lon.device());
}

std::tuple<at::Tensor, at::Tensor> pix2ang(int level, const at::Tensor& pix, Order order) {
  const auto pixels = checked_pixels("pix2ang", level, pix);
  const int64_t* p = pixels.const_data_ptr<int64_t>();
  auto lon = at::empty(pixels.sizes(), at::kDouble), lat = at::empty(pixels.sizes(), at::kDouble);
  auto* lons = lon.mutable_data_ptr<double>();
  auto* lats = lat.mutable_data_ptr<double>();
  at::parallel_for(0, pixels.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = detail::centre(level, detail::decode(order, level, p[i]));
      lons[i] = at.lon;
      lats[i] = at.lat;
    }
  });
  return {lon.to(pix.device()), lat.to(pix.device())};
}

at::Tensor convert(int level, const at::Tensor& pix, Order from, Order to) {
  const auto pixels = checked_pixels("convert", level, pix);
  const auto converted = map_pixels(
      pixels, [=](int64_t p) { return detail::encode(to, level, detail::decode(from, level, p)); });
  return converted.to(pix.device());
}

at::Tensor nest_of_padxy(int level) {
  check_level("nest_of_padxy", level, kMaxFieldLevel);
  return convert(level, at::arange(npix(level), at::kLong), Order::pad_xy, Order::nest);
}

at::Tensor reorder(const at::Tensor& data, Order from, Order to, int64_t dim) {
  HALCYON_CHECK(data.defined() && data.dim() > 0, "reorder",
                "expected data of rank 1 or more, got a scalar");
  HALCYON_CHECK(dim >= -data.dim() && dim < data.dim(), "reorder", "expected dim in {}..{}, got {}",
                -data.dim(), data.dim() - 1, dim);
  const int level = level_of(data.size(dim));
  if (from == to) return data.clone();
  const auto places = at::arange(data.size(dim), at::kLong);
  return at::index_select(data, dim, convert(level, places, to, from).to(data.device()));
}

at::Tensor parent(int level, const at::Tensor& pix, int up, Order order) {
  check_level("parent", level);
  HALCYON_CHECK(up >= 0 && up <= level, "parent", "expected up in 0..{} at level {}, got {}", level,
                level, up);
  const auto pixels = checked_pixels("parent", level, pix);
  const auto parents = map_pixels(pixels, [=](int64_t p) {
    const auto child = detail::decode(order, level, p);
    return detail::encode(order, level - up, {child.face, child.x >> up, child.y >> up});
  });
  return parents.to(pix.device());
}

at::Tensor neighbours(int level, const at::Tensor& pix, Order order) {
  constexpr int kStepX[] = {-1, -1, 0, 1, 1, 1, 0, -1}, kStepY[] = {0, 1, 1, 1, 0, -1, -1, -1};
  const auto pixels = checked_pixels("neighbours", level, pix);
  const int64_t* p = pixels.const_data_ptr<int64_t>();
  auto shape = pixels.sizes().vec();
  shape.push_back(8);
  auto out = at::empty(shape, at::kLong);
  int64_t* around = out.mutable_data_ptr<int64_t>();
  at::parallel_for(0, pixels.numel(), kGrain / 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto centre = detail::decode(order, level, p[i]);
      for (int k = 0; k < 8; ++k) {
        const auto next = detail::step(level, centre, kStepX[k], kStepY[k]);
        around[8 * i + k] = next.face < 0 ? -1 : detail::encode(order, level, next);
      }
    }
  });
  return out.to(pix.device());
}

}  // namespace halcyon::healpix
