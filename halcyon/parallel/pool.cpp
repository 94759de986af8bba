// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/pool.h"

#include <ATen/ATen.h>
#include <ATen/native/Pool.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/base/integers.h"
#include "halcyon/parallel/conv_problem.h"
#include "halcyon/parallel/row_operator.h"

// A rank takes real rows only, from a multiple of the stride on, and lets torch pool and pad them
// as it would the whole: then the windows lie as on the whole tensor, and those that reach beyond
// the axis' ends are padded and counted as there. Windows at the stretch's inner ends, which torch
// pads wrongly, belong to output rows that are dropped.
namespace halcyon::parallel {
namespace {

constexpr const char* kOperation = "pool";

struct Problem {
  int64_t spatial = 0, at = 0;
  std::vector<int64_t> kernel, stride, padding, dilation;
  bool is_max = true, ceil_mode = false, count_include_pad = true;

  int64_t extent(int64_t i) const { return extent_of(kernel[i], dilation[i]); }
  int64_t output(int64_t i, int64_t rows) const {
    return at::native::pooling_output_shape<int64_t>(rows, kernel[i], padding[i], stride[i],
                                                     dilation[i], ceil_mode);
  }
};

Problem problem_of(const at::Tensor& x, const PerAxis& kernel, const std::optional<PerAxis>& stride,
                   const PerAxis& padding, const PerAxis& dilation, const std::string& mode,
                   int64_t dim) {
  Problem p;
  HALCYON_CHECK(x.defined() && x.is_floating_point(), kOperation,
                "expected x of a floating type, got {}", describe(x));
  // one number for the kernel says nothing of the axes: then x has a batch, or it is 1-D
  const auto sizes = static_cast<int64_t>(kernel.values.size());
  p.spatial = sizes > 1 ? sizes : std::max<int64_t>(x.dim() - 2, 1);
  p.at = spatial_axis_of(x, dim, p.spatial, kOperation) - (x.dim() - p.spatial);
  p.kernel = kernel.expand(p.spatial, "kernel_size", 1, kOperation);
  p.stride = stride.value_or(kernel).expand(p.spatial, "stride", 1, kOperation);
  p.padding = padding.expand(p.spatial, "padding", 0, kOperation);
  p.dilation = dilation.expand(p.spatial, "dilation", 1, kOperation);
  HALCYON_CHECK(mode == "max" || mode == "avg", kOperation,
                "expected mode \"max\" or \"avg\", got \"{}\"", mode);
  p.is_max = mode == "max";
  for (int64_t i = 0; i < p.spatial; ++i) {
    HALCYON_CHECK(p.is_max || p.dilation[i] == 1, kOperation,
                  "expected a dilation of 1 with mode \"avg\", got {}", p.dilation[i]);
    HALCYON_CHECK(2 * p.padding[i] <= p.kernel[i], kOperation,
                  "expected padding of at most half the kernel, got {} for {}", p.padding[i],
                  p.kernel[i]);
  }
  return p;
}

void check_fits(const Problem& p, int64_t i, int64_t rows) {
  HALCYON_CHECK(rows > 0 && p.output(i, rows) > 0, kOperation,
                "expected a kernel that fits the padded input, got one that reaches over {} of {} "
                "rows on spatial axis {}",
                p.extent(i), rows + 2 * p.padding[i], i);
  // torch asks the same of avg_pool3d
  HALCYON_CHECK(p.is_max || p.spatial < 3 || rows >= p.kernel[i], kOperation,
                "expected an input of at least the kernel's {} rows on spatial axis {}, got {}",
                p.kernel[i], i, rows);
}

Interval wanted_by(const Problem& p, int64_t first, int64_t last, int64_t rows) {
  if (first == last) return {0, 0};
  const auto stride = p.stride[p.at], extent = p.extent(p.at);
  auto from = std::max<int64_t>(floor_div(first * stride - p.padding[p.at], stride), 0);
  // at least a kernel's rows, where there are so many
  while (from > 0 && rows - from * stride < extent) --from;
  const auto lo = from * stride;
  const auto reached = (last - 1) * stride - p.padding[p.at] + extent;
  return {lo, std::min(std::max(reached, lo + extent), rows)};
}

at::Tensor pooled(const at::Tensor& x, const Problem& p) {
  if (p.is_max) {
    if (p.spatial == 1) {
      return at::max_pool1d(x, p.kernel, p.stride, p.padding, p.dilation, p.ceil_mode);
    }
    const auto pool = p.spatial == 2 ? at::max_pool2d : at::max_pool3d;
    return pool(x, p.kernel, p.stride, p.padding, p.dilation, p.ceil_mode);
  }
  if (p.spatial == 1) {
    return at::avg_pool1d(x, p.kernel, p.stride, p.padding, p.ceil_mode, p.count_include_pad);
  }
  const auto pool = p.spatial == 2 ? at::avg_pool2d : at::avg_pool3d;
  return pool(x, p.kernel, p.stride, p.padding, p.ceil_mode, p.count_include_pad, {});
}

}  // namespace

at::Tensor pool(const at::Tensor& given, const PerAxis& kernel_size,
                const std::optional<PerAxis>& stride, const PerAxis& padding,
                const PerAxis& dilation, const std::string& mode, bool ceil_mode,
                bool count_include_pad, int64_t dim, const Group& group) {
  Problem p;
  auto axis = agree_on_axis(given, {}, group, kOperation, [&](Agreement& agreement) -> int64_t {
    p = problem_of(given, kernel_size, stride, padding, dilation, mode, dim);
    p.ceil_mode = ceil_mode;
    p.count_include_pad = count_include_pad;
    const auto first = given.dim() - p.spatial;
    for (int64_t i = 0; i < p.spatial; ++i) {
      if (i != p.at) check_fits(p, i, given.size(first + i));
    }
    conv_detail::agree_on(agreement, "kernel_size", p.kernel);
    conv_detail::agree_on(agreement, "stride", p.stride);
    conv_detail::agree_on(agreement, "padding", p.padding);
    conv_detail::agree_on(agreement, "dilation", p.dilation);
    agreement.same("mode", mode);
    agreement.same("ceil_mode", static_cast<int64_t>(ceil_mode));
    agreement.same("count_include_pad", static_cast<int64_t>(count_include_pad));
    return first + p.at;
  });
  check_fits(p, p.at, axis.length());
  const bool is_single = given.dim() == p.spatial + 1;
  auto x = joined(given, axis);
  if (is_single) x = x.unsqueeze(0), ++axis.dim;
  const auto outputs = axis.output_starts(p.output(p.at, axis.length()));
  Wanted wanted;
  for (int64_t r = 0; r < group.size(); ++r) {
    wanted.push_back({wanted_by(p, outputs[r], outputs[r + 1], axis.length())});
  }
  const auto first = outputs[group.rank()], last = outputs[group.rank() + 1];
  x = with_at_least(rows_for(x, axis, wanted, Edge::none), axis.dim,
                    first == last ? p.extent(p.at) : 1);
  auto out = pooled(x, p);
  const auto skipped = first == last ? 0 : first - wanted[group.rank()][0].lo / p.stride[p.at];
  if (skipped != 0 || out.size(axis.dim) != last - first) {
    out = out.narrow(axis.dim, skipped, last - first).contiguous();
  }
  return is_single ? out.squeeze(0) : out;
}

}  // namespace halcyon::parallel
