// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healda_pixels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "halcyon/sphere/healpix_pixel.h"

namespace halcyon::healpix::detail {
namespace {

constexpr int64_t kGrain = 8192;  // pixels a task

// v mod 360 in [0, 360], as IEEE fmod would give it.
template <class T>
T wrap_degrees(T v) {
  if (v >= 0 && v < 360) return v;
  v = std::fmod(v, T(360));
  return v < 0 ? v + 360 : v;
}

// v mod q for 0 <= v < 8q, exact like fmod (each difference is representable) but without its cost.
template <class T>
T wrap_octant(T v, T q) {
  // no branches: longitudes of observations jump about
  v -= v >= 4 * q ? 4 * q : T(0);
  v -= v >= 2 * q ? 2 * q : T(0);
  return v - (v >= q ? q : T(0));
}

// std::floor of small numbers, which without SSE 4.1 is a call.
template <class T>
int64_t whole(T v) {
  const auto truncated = static_cast<int64_t>(v);
  return truncated - (v < static_cast<T>(truncated));
}

// A point in the plane of the projection, turned so that faces are unit squares (see
// face_of_block).
template <class T>
struct TurnedPoint {
  T x, y;

  int64_t face() const {
    const auto bx = std::clamp<int64_t>(whole(x), 0, 4);
    const auto by = std::clamp<int64_t>(whole(-y), 0, 4);
    return face_of_block(bx, by);
  }
};

// (lon, lat) in degrees, z = cos(radians(90 - lat)), from_pole = sqrt(3 (1 - |z|)). Every operation
// is in T and in the order in which the HealDA datapipe has it: float32 answers near a border
// depend on it.
template <class T>
TurnedPoint<T> project(T lon, T lat, T z, T from_pole) {
  constexpr T kQuarter = T(M_PI / 4), kEighths = T(3 * M_PI / 8), kRight = T(M_PI / 2);
  constexpr T kRadians = T(M_PI / 180), kCap = T(2.0 / 3.0);
  const T phi = wrap_degrees(lon) * kRadians, height = std::abs(z);
  T xs = phi, ys = kEighths * z;
  if (height > kCap) {
    if constexpr (std::is_same_v<T, double>) {
      if (1 - height < kNearPole) {
        from_pole = std::sqrt(6.0) * std::sin((90 - std::abs(lat)) * (kRadians / 2));
      }
    }
    const T sigma = 2 - from_pole;
    ys = kQuarter * (z < 0 ? -sigma : sigma);
    xs = phi - (std::abs(sigma) - 1) * (wrap_octant(phi, kRight) - kQuarter);
  }
  const T u = xs / kQuarter, w = ys / kQuarter;
  return {(u + w + 1) / 2, (w - u - 1) / 2};
}

// The datapipe's pixel: the place inside the face is what is left of x and y modulo one. On a
// face's outer border, where that is zero instead of one, it names a pixel at the opposite border.
template <class T>
FacePixel datapipe_pixel(int level, const TurnedPoint<T>& p) {
  const int64_t n = int64_t{1} << level;
  // a tiny negative number's remainder rounds up to one
  const auto inside = [n](T v) {
    return std::min<int64_t>(
        static_cast<int64_t>((v - static_cast<T>(whole(v))) * static_cast<T>(n)), n - 1);
  };
  return {p.face(), inside(p.x), inside(p.y)};
}

template <class T>
at::Tensor locate_all(int level, const at::Tensor& lon, const at::Tensor& lat, Order order) {
  // ATen's vectorised cosine and root are the datapipe's: the C library's differ in the last bit
  const auto cosine = lat.neg().add_(90).mul_(M_PI / 180).cos_();
  const auto root = cosine.abs().neg_().add_(1).mul_(3).sqrt_();
  const T* lons = lon.const_data_ptr<T>();
  const T* lats = lat.const_data_ptr<T>();
  const T* z = cosine.template const_data_ptr<T>();
  const T* from_pole = root.template const_data_ptr<T>();
  auto out = at::empty(lon.sizes(), at::kLong);
  int64_t* pix = out.mutable_data_ptr<int64_t>();
  at::parallel_for(0, lon.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto point = project(lons[i], lats[i], z[i], from_pole[i]);
      pix[i] = encode(order, level, datapipe_pixel(level, point));
    }
  });
  return out;
}

}  // namespace

at::Tensor healda_pixels(int level, const at::Tensor& lon, const at::Tensor& lat, Order order) {
  return lon.scalar_type() == at::kFloat ? locate_all<float>(level, lon, lat, order)
                                         : locate_all<double>(level, lon, lat, order);
}

}  // namespace halcyon::healpix::detail
