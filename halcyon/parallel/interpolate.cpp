// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/interpolate.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/row_operator.h"
#include "halcyon/parallel/taps.h"
#include "halcyon/parallel/window.h"

namespace halcyon::parallel {
namespace {

constexpr const char* kOperation = "interpolate";

struct Problem {
  int64_t spatial = 0, at = 0;
  Interpolation kind = Interpolation::nearest;
  bool align_corners = false, in_double = false, is_small = false;
  std::optional<std::vector<int64_t>> size;
  std::optional<std::vector<double>> scale;

  Resized resized(int64_t i, int64_t rows) const {
    const auto output = size ? (*size)[i] : static_cast<int64_t>(rows * (*scale)[i]);
    return {rows,     output,        scale ? std::optional<double>((*scale)[i]) : std::nullopt,
            kind,     align_corners, is_small,
            in_double};
  }
};

template <class T>
std::optional<std::vector<T>> per_axis(const std::optional<std::vector<T>>& given, int64_t n,
                                       const char* name) {
  if (!given) return {};
  HALCYON_CHECK(given->size() == 1 || static_cast<int64_t>(given->size()) == n, kOperation,
                "expected {} as one number or {}, one for each spatial axis, got {} numbers", name,
                n, given->size());
  for (const auto value : *given) {
    HALCYON_CHECK(value > 0 && std::isfinite(static_cast<double>(value)), kOperation,
                  "expected {} above 0, got {}", name, value);
  }
  return given->size() == 1 ? std::vector<T>(n, given->front()) : *given;
}

Interpolation kind_of(const std::string& mode, int64_t spatial) {
  struct Mode {
    const char* name;
    int64_t spatial;  // axes that it is for; 0: any
    Interpolation kind;
  };
  for (const auto& known :
       {Mode{"nearest", 0, Interpolation::nearest},
        Mode{"nearest-exact", 0, Interpolation::nearest_exact},
        Mode{"linear", 1, Interpolation::linear}, Mode{"bilinear", 2, Interpolation::linear},
        Mode{"trilinear", 3, Interpolation::linear}, Mode{"bicubic", 2, Interpolation::cubic}}) {
    if (mode != known.name) continue;
    HALCYON_CHECK(known.spatial == 0 || known.spatial == spatial, kOperation,
                  "expected {} spatial axes with mode \"{}\", got {}", known.spatial, mode,
                  spatial);
    return known.kind;
  }
  throw_error(ErrorKind::argument, kOperation,
              fmt::format("expected mode \"nearest\", \"nearest-exact\", \"linear\", \"bilinear\", "
                          "\"trilinear\" or \"bicubic\", got \"{}\"",
                          mode));
}

Problem problem_of(const at::Tensor& x, const std::optional<std::vector<int64_t>>& size,
                   const std::optional<std::vector<double>>& scale_factor, const std::string& mode,
                   std::optional<bool> align_corners, int64_t dim) {
  Problem p;
  HALCYON_CHECK(x.defined() && x.is_floating_point() && x.dim() >= 3 && x.dim() <= 5, kOperation,
                "expected floating x of (batch, channels, 1 to 3 spatial axes), got {}",
                describe(x));
  p.spatial = x.dim() - 2;
  p.at = spatial_axis_of(x, dim, p.spatial, kOperation) - 2;
  p.kind = kind_of(mode, p.spatial);
  const bool is_nearest =
      p.kind == Interpolation::nearest || p.kind == Interpolation::nearest_exact;
  HALCYON_CHECK(!align_corners || !is_nearest, kOperation,
                "expected no align_corners with mode \"{}\"", mode);
  p.align_corners = align_corners.value_or(false);
  p.in_double = x.scalar_type() == at::kDouble;
  HALCYON_CHECK(size.has_value() != scale_factor.has_value(), kOperation,
                "expected one of size and scale_factor, got {}", size ? "both" : "none");
  p.size = per_axis(size, p.spatial, "size");
  p.scale = per_axis(scale_factor, p.spatial, "scale_factor");
  return p;
}

void check_fits(const Problem& p, int64_t i, int64_t rows) {
  const auto output = p.resized(i, rows).output;
  HALCYON_CHECK(rows > 0 && output > 0, kOperation,
                "expected input and output rows on spatial axis {}, got {} and {}", i, rows,
                output);
}

// Whether ATen takes its path for small outputs of two axes (_use_vectorized_kernel_cond_2d).
bool is_small(const Problem& p, const at::Tensor& x, int64_t rows) {
  int64_t outputs = 0;
  for (int64_t i = 0; i < p.spatial; ++i) {
    outputs += p.resized(i, i == p.at ? rows : x.size(2 + i)).output;
  }
  return p.spatial == 2 && outputs <= 128;
}

// The axes that are whole here: linear ones by torch, each row of the sharded axis being one more
// channel; the others, where torch's rows depend on the number of axes, one by one.
at::Tensor others_resized(at::Tensor x, const Problem& p) {
  std::vector<int64_t> outputs;
  std::vector<std::optional<double>> scales;
  bool is_same = true;
  for (int64_t i = 0; i < p.spatial; ++i) {
    if (i == p.at) continue;
    const auto axis = p.resized(i, x.size(2 + i));
    outputs.push_back(axis.output);
    scales.push_back(axis.scale);
    is_same &= axis.input == axis.output && p.kind == Interpolation::linear;
    if (p.kind != Interpolation::linear) {
      x = resize_axis(x, 2 + i, axis, 0, axis.output, 0);
    }
  }
  if (is_same || p.kind != Interpolation::linear) return x;
  const auto moved = x.movedim(2 + p.at, 2);
  auto sizes = moved.sizes().vec();
  std::copy(outputs.begin(), outputs.end(), sizes.begin() + 3);
  const auto flat = moved.flatten(1, 2);
  const auto out =
      outputs.size() == 1
          ? at::upsample_linear1d(flat, outputs, p.align_corners, scales[0])
          : at::upsample_bilinear2d(flat, outputs, p.align_corners, scales[0], scales[1]);
  return out.view(sizes).movedim(2, 2 + p.at);
}

// Input rows of output rows [first, last); the taps' rows do not decrease with the output row.
Interval wanted_by(const Resized& axis, int64_t first, int64_t last) {
  if (first == last) return {0, 0};
  const auto front = taps_of(axis, first), back = taps_of(axis, last - 1);
  return {front.rows[0], back.rows[back.count - 1] + 1};
}

}  // namespace

at::Tensor interpolate(const at::Tensor& given, const std::optional<std::vector<int64_t>>& size,
                       const std::optional<std::vector<double>>& scale_factor,
                       const std::string& mode, std::optional<bool> align_corners, int64_t dim,
                       const Group& group) {
  Problem p;
  const auto axis =
      agree_on_axis(given, {}, group, kOperation, [&](Agreement& agreement) -> int64_t {
        p = problem_of(given, size, scale_factor, mode, align_corners, dim);
        for (int64_t i = 0; i < p.spatial; ++i) {
          if (i != p.at) check_fits(p, i, given.size(2 + i));
        }
        agreement.same("mode", mode);
        agreement.same("align_corners", static_cast<int64_t>(p.align_corners));
        agreement.same("size or scale_factor", static_cast<int64_t>(p.size.has_value()));
        if (p.size) agreement.same("size", *p.size);
        if (p.scale) {
          agreement.same_bits("scale_factor", p.scale->data(), p.scale->size() * sizeof(double));
        }
        return 2 + p.at;
      });
  check_fits(p, p.at, axis.length());
  p.is_small = is_small(p, given, axis.length());
  const auto along = p.resized(p.at, axis.length());
  const auto outputs = axis.output_starts(along.output);
  Wanted wanted;
  for (int64_t r = 0; r < group.size(); ++r) {
    wanted.push_back({wanted_by(along, outputs[r], outputs[r + 1])});
  }
  auto x = with_at_least(rows_for(given, axis, wanted, Edge::zero), axis.dim, 1);
  const bool is_half = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  if (is_half && p.kind != Interpolation::nearest && p.kind != Interpolation::nearest_exact) {
    x = x.to(at::kFloat);
  }
  const auto r = group.rank();
  x = others_resized(x, p);
  x = resize_axis(x, 2 + p.at, along, outputs[r], outputs[r + 1], wanted[r][0].lo);
  return x.to(given.scalar_type());
}

}  // namespace halcyon::parallel
