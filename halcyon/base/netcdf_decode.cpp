// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <netcdf.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf_packing.h"

// The numbers of a variable by the attributes that netcdf_packing.cpp read.
namespace halcyon::netcdf_detail {
namespace {

enum Doubt : int { none, sign, bounds, unrepresentable };

template <typename S>
bool holds(long double value) {
  return value >= static_cast<long double>(std::numeric_limits<S>::lowest()) &&
         value <= static_cast<long double>(std::numeric_limits<S>::max());
}

// A closed interval of S; empty where the bounds leave nothing.
template <typename S>
struct Interval {
  S low = std::numeric_limits<S>::lowest(), high = std::numeric_limits<S>::max();

  Interval() {
    if constexpr (std::is_floating_point_v<S>) {
      low = -std::numeric_limits<S>::infinity();
      high = std::numeric_limits<S>::infinity();
    }
  }
  void at_least(long double bound) {
    if constexpr (std::is_floating_point_v<S>) {
      low = static_cast<S>(bound);
    } else if (bound > static_cast<long double>(high)) {
      make_empty();
    } else if (bound > static_cast<long double>(low)) {
      low = static_cast<S>(std::ceil(bound));
    }
  }
  void at_most(long double bound) {
    if constexpr (std::is_floating_point_v<S>) {
      high = static_cast<S>(bound);
    } else if (bound < static_cast<long double>(low)) {
      make_empty();
    } else if (bound < static_cast<long double>(high)) {
      high = static_cast<S>(std::floor(bound));
    }
  }
  bool operator()(S x) const { return x >= low && x <= high; }  // false for NaN

 private:
  void make_empty() {
    low = 1;
    high = 0;
  }
};

// The rules of one variable in the type S of its stored numbers.
template <typename S>
class Decoder {
 public:
  explicit Decoder(const Packing& packing)
      : packing_(packing),
        scaled_(packing.scaled()),
        scale_(packing.scale),
        offset_(packing.offset) {
    for (const auto& mark : packing.marks) add(mark);
    apply(packing.packed, within_);
    apply_to_values(packing.unpacked, within_, value_within_);
    if (packing.doubtful.low || packing.doubtful.high) {
      in_doubt_ = true;
      apply(packing.doubtful, doubtful_);
      apply_to_values(packing.doubtful, doubtful_as_values_, doubtful_value_);
    }
  }

  double value(S x) const {
    const auto stored = static_cast<double>(x);
    return scaled_ ? stored * scale_ + offset_ : stored;
  }

  bool missing(S x, int& doubt) const {
    for (const S mark : marks_) {
      if (x == mark) return true;
    }
    if constexpr (std::is_same_v<S, double>) {
      for (const float mark : short_marks_) {
        if (static_cast<float>(x) == mark) return true;
      }
    }
    if (!within_(x) || !value_is_in(value_within_, x)) return true;
    for (const S mark : other_sign_) {
      if (x == mark) doubt = Doubt::sign;
    }
    if (in_doubt_) {
      const bool in = doubtful_(x);
      if (in != (doubtful_as_values_(x) && value_is_in(doubtful_value_, x))) doubt = Doubt::bounds;
      return !in;
    }
    return false;
  }

  std::string explain(int doubt) const {
    if (doubt == Doubt::sign)
      return fmt::format(
          "{}: a missing value of another sign than the numbers that are stored, and some have its "
          "bits ({}): expected _Unsigned to say which are meant",
          packing_.where, other_sign_.front());
    if (doubt == Doubt::unrepresentable)
      return fmt::format("{}: expected whole numbers of 64 bits, got others", packing_.where);
    return fmt::format(
        "{}: valid_min, valid_max or valid_range is neither of the type of the stored numbers nor "
        "of that of scale_factor and add_offset, and it matters here which of them it bounds",
        packing_.where);
  }

 private:
  // A mark in the type of the stored numbers, as CF wants it.
  void add(const Mark& mark) {
    if constexpr (std::is_floating_point_v<S>) {
      if (std::isnan(mark.value)) return;  // as all NaN
      marks_.push_back(static_cast<S>(mark.value));
      // 3.40282357e+38 written with few digits is beyond the largest float
      if (std::isfinite(mark.value) && !std::isfinite(marks_.back()))
        marks_.push_back(std::copysign(std::numeric_limits<S>::max(), marks_.back()));
      // -9999.9f beside doubles: -9999.9 was meant
      if (std::is_same_v<S, double> && mark.type == NC_FLOAT)
        short_marks_.push_back(static_cast<float>(mark.value));
    } else {
      if (!std::isfinite(mark.value)) return;  // no integer is
      const bool whole = mark.value == std::nearbyint(mark.value);
      if (whole && holds<S>(mark.value)) {
        marks_.push_back(static_cast<S>(mark.value));
      } else if (whole && holds<std::make_signed_t<S>>(mark.value)) {
        of_other_sign(static_cast<S>(static_cast<std::make_signed_t<S>>(mark.value)));
      } else if (whole && holds<std::make_unsigned_t<S>>(mark.value)) {
        of_other_sign(static_cast<S>(static_cast<std::make_unsigned_t<S>>(mark.value)));
      }
      if (mark.type == NC_FLOAT || mark.type == NC_DOUBLE) add_as_value(mark);
    }
  }

  // _FillValue = -1b of unsigned bytes is 255; without _Unsigned nobody knows.
  void of_other_sign(S bits) {
    if (packing_.reinterpreted) {
      marks_.push_back(bits);
    } else {
      other_sign_.push_back(bits);
    }
  }

  // missing_value = -999.9 of packed integers: the number that unpacks to it.
  void add_as_value(const Mark& mark) {
    if (!packing_.scaled()) return;
    const long double packed = (mark.value - offset_) / scale_, nearest = std::nearbyint(packed);
    const long double slack = 1e-3L + (mark.type == NC_FLOAT ? 1e-7L : 1e-15L) *
                                          std::abs(mark.value / static_cast<long double>(scale_));
    if (std::abs(packed - nearest) <= std::min(slack, 0.5L) && holds<S>(nearest))
      marks_.push_back(static_cast<S>(nearest));
  }

  static void apply(const Bounds& given, Interval<S>& interval) {
    if (given.low) interval.at_least(*given.low);
    if (given.high) interval.at_most(*given.high);
  }

  // Bounds of the values: of integers packed as those are, by rounding, so that a bound itself is
  // inside; of floating numbers compared with the value.
  void apply_to_values(const Bounds& given, Interval<S>& stored, Interval<S>& values) const {
    if constexpr (std::is_floating_point_v<S>) {
      apply(given, values);
    } else {
      const auto packed = [&](long double bound) {
        return std::nearbyint((bound - offset_) / scale_);
      };
      Bounds both;
      if (given.low) (scale_ > 0 ? both.low : both.high) = packed(*given.low);
      if (given.high) (scale_ > 0 ? both.high : both.low) = packed(*given.high);
      apply(both, stored);
    }
  }

  bool value_is_in(const Interval<S>& interval, S x) const {
    if constexpr (std::is_floating_point_v<S>) {
      return interval(static_cast<S>(value(x)));
    } else {
      return true;
    }
  }

  const Packing& packing_;
  bool scaled_;
  double scale_, offset_;
  std::vector<S> marks_, other_sign_;
  std::vector<float> short_marks_;
  Interval<S> within_, value_within_;
  bool in_doubt_ = false;
  Interval<S> doubtful_, doubtful_as_values_, doubtful_value_;
};

// out[i] = convert(stored[i], decoder, doubt); a doubt of any element is an error.
template <typename S, typename Out, typename Convert>
void fill(const at::Tensor& stored, at::Tensor& out, const Packing& packing, Convert convert) {
  const Decoder<S> decoder(packing);
  const auto* from = static_cast<const S*>(stored.const_data_ptr());
  Out* to = out.mutable_data_ptr<Out>();
  std::atomic<int> worst{Doubt::none};
  at::parallel_for(0, stored.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    int doubt = Doubt::none;
    for (int64_t i = begin; i < end; ++i) to[i] = convert(from[i], decoder, doubt);
    if (doubt != Doubt::none) worst = doubt;
  });
  if (worst != Doubt::none) throw_error(ErrorKind::input, "NetCDF", decoder.explain(worst));
}

template <typename Out, typename Convert>
void fill(const at::Tensor& stored, at::Tensor& out, const Packing& packing, Convert convert) {
  switch (packing.type) {
    case NC_BYTE:
      return fill<int8_t, Out>(stored, out, packing, convert);
    case NC_UBYTE:
      return fill<uint8_t, Out>(stored, out, packing, convert);
    case NC_SHORT:
      return fill<int16_t, Out>(stored, out, packing, convert);
    case NC_USHORT:
      return fill<uint16_t, Out>(stored, out, packing, convert);
    case NC_INT:
      return fill<int32_t, Out>(stored, out, packing, convert);
    case NC_UINT:
      return fill<uint32_t, Out>(stored, out, packing, convert);
    case NC_INT64:
      return fill<int64_t, Out>(stored, out, packing, convert);
    case NC_UINT64:
      return fill<uint64_t, Out>(stored, out, packing, convert);
    case NC_FLOAT:
      return fill<float, Out>(stored, out, packing, convert);
    default:
      return fill<double, Out>(stored, out, packing, convert);
  }
}

}  // namespace

at::Tensor raw_numbers(const std::vector<int64_t>& shape, int type) {
  switch (type) {
    case NC_BYTE:
    case NC_UBYTE:
      return at::empty(shape, at::kByte);
    case NC_SHORT:
    case NC_USHORT:
      return at::empty(shape, at::kShort);
    case NC_INT:
    case NC_UINT:
      return at::empty(shape, at::kInt);
    case NC_FLOAT:
      return at::empty(shape, at::kFloat);
    case NC_DOUBLE:
      return at::empty(shape, at::kDouble);
    default:
      return at::empty(shape, at::kLong);
  }
}

at::Tensor decode(const at::Tensor& stored, const Packing& packing, at::ScalarType dtype) {
  auto out = at::empty(stored.sizes(), dtype);
  const auto physical = [](auto zero) {
    return [zero](auto x, const auto& decoder, int& doubt) {
      return decoder.missing(x, doubt) ? std::numeric_limits<decltype(zero)>::quiet_NaN()
                                       : static_cast<decltype(zero)>(decoder.value(x));
    };
  };
  if (dtype == at::kFloat) {
    fill<float>(stored, out, packing, physical(0.0F));
  } else {
    fill<double>(stored, out, packing, physical(0.0));
  }
  return out;
}

at::Tensor decode_integers(const at::Tensor& stored, const Packing& packing, int64_t missing) {
  auto out = at::empty(stored.sizes(), at::kLong);
  const bool scaled = packing.scaled();
  fill<int64_t>(stored, out, packing, [=](auto x, const auto& decoder, int& doubt) {
    if (decoder.missing(x, doubt)) return missing;
    if constexpr (std::is_integral_v<decltype(x)>) {
      if (!scaled) {
        if (!std::in_range<int64_t>(x)) doubt = Doubt::unrepresentable;
        return static_cast<int64_t>(x);
      }
    }
    const double value = decoder.value(x), whole = std::nearbyint(value);
    if (std::abs(value - whole) > 1e-6 || std::abs(value) > 9e18) {
      doubt = Doubt::unrepresentable;
      return missing;
    }
    return static_cast<int64_t>(whole);
  });
  return out;
}

}  // namespace halcyon::netcdf_detail
