// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/conv.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <utility>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/conv_problem.h"

namespace halcyon::parallel {
namespace conv_detail {

void check_parameters(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      int64_t groups, bool transposed, const std::string& operation) {
  const auto spatial = weight.dim() - 2;
  const auto channels = x.size(x.dim() - spatial - 1);
  const auto in = weight.size(0), out = weight.size(1);  // named as of a transposed convolution
  HALCYON_CHECK(x.is_floating_point(), operation, "expected x of a floating type, got {}",
                describe(x));
  HALCYON_CHECK(groups >= 1 && in % groups == 0, operation,
                "expected groups to divide the first axis of weight {}, got {}", describe(weight),
                groups);
  HALCYON_CHECK(channels == (transposed ? in : out * groups), operation,
                "expected x with {} channels for weight {} and {} groups, got {}",
                transposed ? in : out * groups, describe(weight), groups, describe(x));
  const auto outputs = transposed ? out * groups : in;
  HALCYON_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == outputs), operation,
                "expected bias ({}), got {}", outputs, describe(bias));
  for (int64_t i = 0; i < spatial; ++i) {
    HALCYON_CHECK(weight.size(2 + i) >= 1, operation, "expected a kernel that is not empty, got {}",
                  describe(weight));
  }
  for (const auto& other : {weight, bias}) {
    if (!other.defined()) continue;
    HALCYON_CHECK(other.device() == x.device(), operation,
                  "expected weight and bias on the device of x {}, got {}", describe(x),
                  describe(other));
    HALCYON_CHECK(other.scalar_type() == x.scalar_type(), operation,
                  "expected weight and bias of the dtype of x {}, got {}", describe(x),
                  describe(other));
  }
}

void agree_on(Agreement& agreement, const char* name, const std::vector<int64_t>& values) {
  agreement.same_bits(name, values.data(), values.size() * sizeof(int64_t));
}

void agree_on_parameters(Agreement& agreement, const at::Tensor& weight, const at::Tensor& bias) {
  agree_on(agreement, "shape of weight", weight.sizes().vec());
  agreement.same("bias or none", static_cast<int64_t>(bias.defined()));
}

at::Tensor padded_off_axis(const at::Tensor& x, const Problem& p, std::vector<int64_t>& pads) {
  std::vector<int64_t> around(2 * p.spatial, 0), behind(2 * p.spatial, 0);
  bool any_around = false, any_behind = false;
  pads.assign(p.spatial, 0);
  for (int64_t i = 0; i < p.spatial; ++i) {
    if (i == p.at) continue;
    const auto entry = 2 * (p.spatial - 1 - i);  // at::pad counts axes from the last
    if (p.mode == "zeros") {
      pads[i] = p.before[i];
      behind[entry + 1] = p.after[i] - p.before[i];
      any_behind |= behind[entry + 1] != 0;
    } else {
      around[entry] = p.before[i];
      around[entry + 1] = p.after[i];
      any_around |= p.before[i] + p.after[i] != 0;
    }
  }
  if (any_around) return at::pad(x, around, p.mode);
  return any_behind ? at::constant_pad_nd(x, behind) : x;
}

}  // namespace conv_detail

namespace {

using conv_detail::Problem;

void set_padding(Problem& p, const Padding& padding) {
  p.before.assign(p.spatial, 0);
  p.after.assign(p.spatial, 0);
  if (const auto* numbers = std::get_if<PerAxis>(&padding)) {
    p.before = p.after = numbers->expand(p.spatial, "padding", 0, p.operation);
    return;
  }
  const auto& name = std::get<std::string>(padding);
  HALCYON_CHECK(name == "same" || name == "valid", p.operation,
                "expected padding as numbers, \"same\" or \"valid\", got \"{}\"", name);
  if (name == "valid") return;
  for (int64_t i = 0; i < p.spatial; ++i) {
    HALCYON_CHECK(p.stride[i] == 1, p.operation,
                  "expected a stride of 1 with padding \"same\", got {}", p.stride[i]);
    p.before[i] = (p.extent(i) - 1) / 2;
    p.after[i] = p.extent(i) - 1 - p.before[i];
  }
}

void set_edge(Problem& p, const std::string& mode, const std::optional<std::string>& edge,
              const at::Tensor& x, int64_t axis) {
  HALCYON_CHECK(mode == "zeros" || mode == "circular" || mode == "reflect", p.operation,
                "expected padding_mode \"zeros\", \"circular\" or \"reflect\", got \"{}\"", mode);
  p.mode = mode;
  p.edge = mode == "zeros" ? Edge::zero : mode == "circular" ? Edge::periodic : Edge::reflect;
  if (edge) p.edge = edge_of(*edge, p.operation);
  HALCYON_CHECK(p.edge != Edge::none, p.operation,
                "expected edge \"zero\", \"periodic\", \"reflect\" or \"fold\", got \"none\" "
                "(padding 0 leaves out what the axis does not have)");
  HALCYON_CHECK(p.edge != Edge::fold || axis != x.dim() - 1, p.operation,
                "expected the last axis to be the longitudes with edge \"fold\", got it as dim");
}

// What padding and kernel ask of an axis; the sharded one's length is known after the agreement.
void check_fits(const Problem& p, int64_t i, int64_t rows) {
  const auto padded = rows + p.before[i] + p.after[i];
  HALCYON_CHECK(rows > 0 && p.output(i, rows) > 0, p.operation,
                "expected a kernel that fits the padded input, got one that reaches over {} of {} "
                "rows on spatial axis {}",
                p.extent(i), padded, i);
  if (i == p.at || p.mode == "zeros") return;
  const auto widest = std::max(p.before[i], p.after[i]);
  HALCYON_CHECK(p.mode == "circular" ? widest <= rows : widest < rows, p.operation,
                "expected a {} padding within spatial axis {} of {}, got {}", p.mode, i, rows,
                widest);
}

Problem problem_of(const at::Tensor& x, const at::Tensor& weight, const PerAxis& stride,
                   const Padding& padding, const PerAxis& dilation, int64_t groups,
                   const std::string& mode, int64_t dim, const std::optional<std::string>& edge) {
  Problem p;
  p.operation = "conv";
  HALCYON_CHECK(weight.defined() && weight.dim() >= 3, p.operation,
                "expected weight of (out, in, kernel...), got {}", describe(weight));
  p.spatial = weight.dim() - 2;
  const auto axis = spatial_axis_of(x, dim, p.spatial, p.operation);
  p.at = axis - (x.dim() - p.spatial);
  p.kernel = weight.sizes().slice(2).vec();
  p.stride = stride.expand(p.spatial, "stride", 1, p.operation);
  p.dilation = dilation.expand(p.spatial, "dilation", 1, p.operation);
  p.groups = groups;
  set_padding(p, padding);
  set_edge(p, mode, edge, x, axis);
  return p;
}

// What rank r's output rows reach of the global axis.
Wanted wanted_rows(const std::vector<int64_t>& outputs, const Problem& p) {
  Wanted wanted;
  for (size_t r = 0; r + 1 < outputs.size(); ++r) {
    const auto lo = outputs[r] * p.stride[p.at] - p.before[p.at];
    const auto hi = (outputs[r + 1] - 1) * p.stride[p.at] - p.before[p.at] + p.extent(p.at);
    const bool is_empty = outputs[r] == outputs[r + 1];
    wanted.push_back({is_empty ? Interval{0, 0} : Interval{lo, hi}});
  }
  return wanted;
}

}  // namespace

at::Tensor conv(const at::Tensor& given, const at::Tensor& given_weight,
                const std::optional<at::Tensor>& given_bias, const PerAxis& stride,
                const Padding& padding, const PerAxis& dilation, int64_t groups,
                const std::string& padding_mode, int64_t dim, const Group& group,
                const std::optional<std::string>& edge) {
  const std::string operation = "conv";
  const auto cast = [](const at::Tensor& t) { return t.defined() ? as_autocast(t) : t; };
  auto x = cast(given), weight = cast(given_weight), bias = cast(given_bias.value_or(at::Tensor()));
  Problem p;
  auto axis =
      agree_on_axis(x, {weight, bias}, group, operation, [&](Agreement& agreement) -> int64_t {
        p = problem_of(x, weight, stride, padding, dilation, groups, padding_mode, dim, edge);
        conv_detail::check_parameters(x, weight, bias, groups, false, operation);
        const auto first = x.dim() - p.spatial;
        for (int64_t i = 0; i < p.spatial; ++i) {
          if (i != p.at) check_fits(p, i, x.size(first + i));
        }
        conv_detail::agree_on_parameters(agreement, weight, bias);
        conv_detail::agree_on(agreement, "stride", p.stride);
        conv_detail::agree_on(agreement, "padding", p.before);
        conv_detail::agree_on(agreement, "padding behind", p.after);
        conv_detail::agree_on(agreement, "dilation", p.dilation);
        agreement.same("groups", groups);
        agreement.same("padding_mode", padding_mode);
        agreement.same("edge", std::string(name_of(p.edge)));
        return first + p.at;
      });
  check_fits(p, p.at, axis.length());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const bool is_single = x.dim() == p.spatial + 1;
  x = joined(x, axis);
  weight = joined(weight, axis, 1);
  if (is_single) x = x.unsqueeze(0), ++axis.dim;
  std::vector<int64_t> pads;
  at::Tensor out;
  if (conv_detail::can_convolve_in_place(axis, p)) {
    x = conv_detail::padded_off_axis(x, p, pads);
    out = conv_detail::convolve_in_place(x, weight, bias, axis, p, pads);
  } else {
    const auto outputs = axis.output_starts(p.output(p.at, axis.length()));
    const auto rows = outputs[group.rank() + 1] - outputs[group.rank()];
    x = rows_for(x, axis, wanted_rows(outputs, p), p.edge);
    x = with_at_least(x, axis.dim, p.extent(p.at));
    x = conv_detail::padded_off_axis(x, p, pads);
    out = at::convolution(x, weight, bias, p.stride, pads, p.dilation, false,
                          std::vector<int64_t>(p.spatial, 0), groups);
    if (rows == 0) out = out.narrow(axis.dim, 0, 0);
  }
  return is_single ? out.squeeze(0) : out;
}

}  // namespace halcyon::parallel
