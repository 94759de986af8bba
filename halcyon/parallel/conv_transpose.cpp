// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/base/integers.h"
#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/conv_problem.h"

// Row o of the result is row f = o + padding of the unpadded one, and input row i adds to its rows
// [i stride, i stride + extent): a rank takes the input rows that touch its own, and drops the
// surplus at both ends.
namespace halcyon::parallel {
namespace {

struct Problem {
  int64_t spatial = 0, at = 0;
  std::vector<int64_t> kernel, stride, padding, output_padding, dilation;

  int64_t extent(int64_t i) const { return extent_of(kernel[i], dilation[i]); }
  int64_t output(int64_t i, int64_t rows) const {
    return (rows - 1) * stride[i] - 2 * padding[i] + extent(i) + output_padding[i];
  }
};

constexpr const char* kOperation = "conv_transpose";

Problem problem_of(const at::Tensor& x, const at::Tensor& weight, const PerAxis& stride,
                   const PerAxis& padding, const PerAxis& output_padding, const PerAxis& dilation,
                   int64_t dim) {
  Problem p;
  HALCYON_CHECK(weight.defined() && weight.dim() >= 3, kOperation,
                "expected weight of (in, out, kernel...), got {}", describe(weight));
  const auto n = p.spatial = weight.dim() - 2;
  p.at = spatial_axis_of(x, dim, n, kOperation) - (x.dim() - n);
  p.kernel = weight.sizes().slice(2).vec();
  p.stride = stride.expand(n, "stride", 1, kOperation);
  p.padding = padding.expand(n, "padding", 0, kOperation);
  p.output_padding = output_padding.expand(n, "output_padding", 0, kOperation);
  p.dilation = dilation.expand(n, "dilation", 1, kOperation);
  for (int64_t i = 0; i < n; ++i) {
    HALCYON_CHECK(p.output_padding[i] < std::max(p.stride[i], p.dilation[i]), kOperation,
                  "expected output_padding below stride or dilation, got {} for {} and {}",
                  p.output_padding[i], p.stride[i], p.dilation[i]);
  }
  return p;
}

void check_fits(const Problem& p, int64_t i, int64_t rows) {
  HALCYON_CHECK(rows > 0 && p.output(i, rows) > 0, kOperation,
                "expected a padding that leaves output rows, got {} of {} input rows on spatial "
                "axis {}",
                rows > 0 ? p.output(i, rows) : 0, rows, i);
}

// The input rows that a rank takes for its output rows [first, last): from the last at or before
// all that touch them, so that the unpadded result begins in front of them, to where it covers
// them, also where the stride leaves gaps between the windows.
Interval wanted_by(const Problem& p, int64_t first, int64_t last) {
  if (first == last) return {0, 0};
  const auto stride = p.stride[p.at], extent = p.extent(p.at);
  const auto from = first + p.padding[p.at], to = last - 1 + p.padding[p.at];
  const auto lo = floor_div(from - (extent - 1), stride);
  auto hi = floor_div(to, stride) + 1;
  if ((hi - 1) * stride + extent <= to) ++hi;
  return {lo, hi};
}

}  // namespace

at::Tensor conv_transpose(const at::Tensor& given, const at::Tensor& given_weight,
                          const std::optional<at::Tensor>& given_bias, const PerAxis& stride,
                          const PerAxis& padding, const PerAxis& output_padding, int64_t groups,
                          const PerAxis& dilation, int64_t dim, const Group& group) {
  const auto cast = [](const at::Tensor& t) { return t.defined() ? as_autocast(t) : t; };
  auto x = cast(given), weight = cast(given_weight);
  const auto bias = cast(given_bias.value_or(at::Tensor()));
  Problem p;
  auto axis =
      agree_on_axis(x, {weight, bias}, group, kOperation, [&](Agreement& agreement) -> int64_t {
        p = problem_of(x, weight, stride, padding, output_padding, dilation, dim);
        conv_detail::check_parameters(x, weight, bias, groups, true, kOperation);
        const auto first = x.dim() - p.spatial;
        for (int64_t i = 0; i < p.spatial; ++i) {
          if (i != p.at) check_fits(p, i, x.size(first + i));
        }
        conv_detail::agree_on_parameters(agreement, weight, bias);
        conv_detail::agree_on(agreement, "stride", p.stride);
        conv_detail::agree_on(agreement, "padding", p.padding);
        conv_detail::agree_on(agreement, "output_padding", p.output_padding);
        conv_detail::agree_on(agreement, "dilation", p.dilation);
        agreement.same("groups", groups);
        return first + p.at;
      });
  check_fits(p, p.at, axis.length());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const bool is_single = x.dim() == p.spatial + 1;
  x = joined(x, axis);
  weight = joined(weight, axis, 1);
  if (is_single) x = x.unsqueeze(0), ++axis.dim;
  const auto outputs = axis.output_starts(p.output(p.at, axis.length()));
  Wanted wanted;
  for (int64_t r = 0; r < group.size(); ++r) {
    wanted.push_back({wanted_by(p, outputs[r], outputs[r + 1])});
  }
  const auto first = outputs[group.rank()], last = outputs[group.rank() + 1];
  x = with_at_least(rows_for(x, axis, wanted, Edge::zero), axis.dim, 1);
  auto pads = p.padding, output_pads = p.output_padding;
  pads[p.at] = output_pads[p.at] = 0;
  auto out =
      at::convolution(x, weight, bias, p.stride, pads, p.dilation, true, output_pads, groups);
  const auto skipped =
      first == last ? 0 : first + p.padding[p.at] - wanted[group.rank()][0].lo * p.stride[p.at];
  out = out.narrow(axis.dim, skipped, last - first).contiguous();
  return is_single ? out.squeeze(0) : out;
}

}  // namespace halcyon::parallel
