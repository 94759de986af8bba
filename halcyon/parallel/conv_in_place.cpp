// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "halcyon/base/error.h"
#include "halcyon/ops/kept.h"
#include "halcyon/parallel/conv_problem.h"

// A convolution of stride 1 that keeps the number of rows, without a padded copy of x: the rows
// that this rank has are convolved with zeros around them while those of the neighbours are under
// way; the p rows at each end that lacked them are then computed again from the stretch of 3 p
// input rows that they reach. Backward: that convolution's input gradient is right for the rows
// here as it stands, and the stretches give the cotangents of the neighbours' rows, which travel
// while it is computed.
namespace halcyon::parallel::conv_detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Triple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

struct Plan {
  Problem p;
  std::vector<int64_t> pads;  // with those of the sharded axis
  int64_t dim = 0, width = 0;
  bool above = false, below = false;        // the ends that are computed again
  std::shared_ptr<const RowTransfer> halo;  // the width rows above and the width below
  std::shared_ptr<const RowTransfer> all;   // those with this rank's between them
};

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Plan& plan, int64_t pad) {
  auto pads = plan.pads;
  pads[plan.p.at] = pad;
  return at::convolution(x, weight, bias, plan.p.stride, pads, plan.p.dilation, false,
                         std::vector<int64_t>(pads.size(), 0), plan.p.groups);
}

Triple gradients(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                 const Plan& plan, int64_t pad, std::array<bool, 3> wanted) {
  auto pads = plan.pads;
  pads[plan.p.at] = pad;
  const std::vector<int64_t> zeros(pads.size(), 0), bias{grad.size(1)};
  return at::convolution_backward(grad, x, weight, bias, plan.p.stride, pads, plan.p.dilation,
                                  false, zeros, plan.p.groups, wanted);
}

// The ends of y, or of a gradient like it, one after the other on the batch axis.
at::Tensor ends_of(const at::Tensor& y, const Plan& plan) {
  std::vector<at::Tensor> ends;
  if (plan.above) ends.push_back(y.narrow(plan.dim, 0, plan.width));
  if (plan.below) ends.push_back(y.narrow(plan.dim, y.size(plan.dim) - plan.width, plan.width));
  return at::cat(ends);
}

// The input rows that those reach, with inner(first row, rows) as this rank's own.
template <class Inner>
at::Tensor stretches_of(const at::Tensor& halo, int64_t rows, const Plan& plan, Inner inner) {
  const auto w = plan.width;
  std::vector<at::Tensor> stretches;
  if (plan.above) {
    stretches.push_back(at::cat({halo.narrow(plan.dim, 0, w), inner(0, 2 * w)}, plan.dim));
  }
  if (plan.below) {
    stretches.push_back(
        at::cat({inner(rows - 2 * w, 2 * w), halo.narrow(plan.dim, w, w)}, plan.dim));
  }
  return at::cat(stretches);
}

struct ConvolveInPlace : torch::autograd::Function<ConvolveInPlace> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias,
                            const std::shared_ptr<const Plan>& kept) {
    const auto& plan = *kept;
    MovingRows moving(x, *plan.halo);
    auto y = convolve(x, weight, bias.value_or(at::Tensor()), plan, plan.width);
    const auto halo = moving.wait();
    if (plan.above || plan.below) {
      const auto rows = x.size(plan.dim);
      const auto stretches = stretches_of(halo, rows, plan, [&](int64_t first, int64_t count) {
        return x.narrow(plan.dim, first, count);
      });
      const auto ends = convolve(stretches, weight, bias.value_or(at::Tensor()), plan, 0);
      const auto batch = x.size(0);
      if (plan.above) y.narrow(plan.dim, 0, plan.width).copy_(ends.narrow(0, 0, batch));
      if (plan.below) {
        y.narrow(plan.dim, rows - plan.width, plan.width)
            .copy_(ends.narrow(0, ends.size(0) - batch, batch));
      }
    }
    ctx->save_for_backward({x, weight, halo});
    ctx->saved_data["bias"] = bias.has_value();
    Kept<Plan>::keep(*ctx, kept);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const std::array<bool, 3> wanted{ctx->needs_input_grad(0), ctx->needs_input_grad(1),
                                     ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)};
    const auto kept = Kept<Plan>::of(*ctx);
    const auto& plan = *kept;
    auto [x, weight, bias] = at::GradMode::is_enabled()
                                 ? differentiable(grads[0], saved[0], saved[1], plan, wanted)
                                 : overlapped(grads[0], saved[0], saved[1], saved[2], plan, wanted);
    return {x, weight, bias, {}};
  }

 private:
  static Triple overlapped(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                           const at::Tensor& halo, const Plan& plan, std::array<bool, 3> wanted) {
    const auto w = plan.width;
    const auto rows = x.size(plan.dim), batch = x.size(0);
    at::Tensor of_ends, weight_of_ends, of_halo;
    if ((plan.above || plan.below) && (wanted[0] || wanted[1])) {
      // the rows here are in the other convolution's weight gradient already
      auto inner_sizes = x.sizes().vec();
      inner_sizes[plan.dim] = 2 * w;
      auto inner = at::zeros(inner_sizes, x.options());
      const auto stretches =
          stretches_of(halo, rows, plan, [&](int64_t, int64_t) { return inner; });
      std::tie(of_ends, weight_of_ends, std::ignore) =
          gradients(ends_of(grad, plan), stretches, weight, plan, 0, {wanted[0], wanted[1], false});
    }
    std::optional<ReturningRows> returning;
    if (wanted[0]) {
      of_halo = at::zeros_like(halo);
      if (plan.above) {
        of_halo.narrow(plan.dim, 0, w).copy_(of_ends.narrow(0, 0, batch).narrow(plan.dim, 0, w));
      }
      if (plan.below) {
        of_halo.narrow(plan.dim, w, w)
            .copy_(of_ends.narrow(0, of_ends.size(0) - batch, batch).narrow(plan.dim, 2 * w, w));
      }
      returning.emplace(of_halo, *plan.halo);
    }
    auto [of_x, of_weight, of_bias] = gradients(grad, x, weight, plan, w, wanted);
    if (returning) returning->wait(of_x);
    if (wanted[1] && weight_of_ends.defined()) of_weight.add_(weight_of_ends);
    return {of_x, of_weight, of_bias};
  }

  // The same by operations that have derivatives themselves.
  static Triple differentiable(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& weight, const Plan& plan,
                               std::array<bool, 3> wanted) {
    const auto padded = move_rows(x, plan.all);
    auto [of_x, of_weight, of_bias] = gradients(grad, padded, weight, plan, 0, wanted);
    if (wanted[0]) of_x = return_rows(of_x, plan.all);
    return {of_x, of_weight, of_bias};
  }
};

}  // namespace

bool can_convolve_in_place(const ShardedAxis& axis, const Problem& p) {
  const auto width = p.before[p.at];
  if (p.stride[p.at] != 1 || width != p.after[p.at] || width == 0 || p.edge == Edge::fold ||
      2 * width != p.extent(p.at) - 1) {
    return false;
  }
  for (size_t r = 0; r + 1 < axis.starts.size(); ++r) {
    if (axis.starts[r + 1] - axis.starts[r] < 2 * width) return false;
  }
  return true;
}

at::Tensor convolve_in_place(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const ShardedAxis& axis, const Problem& p,
                             const std::vector<int64_t>& pads) {
  auto plan = std::make_shared<Plan>();
  plan->p = p;
  plan->pads = pads;
  plan->dim = axis.dim;
  const auto w = plan->width = p.before[p.at];
  const auto first = axis.starts[axis.group.rank()], last = axis.starts[axis.group.rank() + 1];
  plan->above = p.edge != Edge::zero || first > 0;
  plan->below = p.edge != Edge::zero || last < axis.length();
  Wanted halo, all;
  for (size_t r = 0; r + 1 < axis.starts.size(); ++r) {
    const auto lo = axis.starts[r], hi = axis.starts[r + 1];
    halo.push_back({{lo - w, lo}, {hi, hi + w}});
    all.push_back({{lo - w, hi + w}});
  }
  plan->halo = transfer_of(x, axis, halo, p.edge);
  plan->all = transfer_of(x, axis, all, p.edge);
  return ConvolveInPlace::apply(x, weight,
                                bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt,
                                std::shared_ptr<const Plan>(plan));
}

}  // namespace halcyon::parallel::conv_detail
