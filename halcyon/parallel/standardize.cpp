// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/standardize.h"
#include "halcyon/ops/kept.h"

#include <ATen/ATen.h>

#include "halcyon/parallel/reduce.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Task : Population {
  LocalMoments local;  // until the forward has run
  Moments all;
  double eps = 0;
};

// Standardized values and, so that the backward is itself differentiable, the reciprocal of the
// standard deviation as a function of x.
struct Standardize : torch::autograd::Function<Standardize> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x,
                               const std::shared_ptr<Task>& task) {
    const auto dtype = x.scalar_type();
    const auto& all = task->all;
    const auto count = static_cast<double>(std::max<int64_t>(all.count, 1));
    const auto reciprocal = (all.squares / count + task->eps).rsqrt();
    const auto& local = task->local;
    const auto offset = (local.shift.to(at::kDouble) - all.mean) * reciprocal;
    const auto deviation = reciprocal.to(dtype);
    auto out = local.centred;
    at::addcmul_out(out, offset.to(dtype).expand_as(out), out, deviation.expand_as(out));
    task->local = {};
    task->all = {all.count, {}, {}};
    ctx->save_for_backward({out, deviation});
    Kept<Task>::keep(*ctx, task);
    return {out, deviation};
  }

  // d out / d x by the mean and the variance, d deviation / d x by the variance.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto &out = saved[0], &deviation = saved[1];
    const auto task = Kept<Task>::of(*ctx);
    const auto axes = at::IntArrayRef(task->axes);
    const auto sums =
        sum_over_ranks(at::stack({grads[0].sum(axes, true), (grads[0] * out).sum(axes, true),
                                  grads[1] * deviation}),
                       task->group, task->operation + " backward", task->tag + kAdjoint);
    const auto share = deviation / static_cast<double>(std::max<int64_t>(task->all.count, 1));
    const auto constant = -share * sums[0];
    const auto linear = -share * (sums[1] + sums[2]);
    return {at::addcmul(at::addcmul(constant, linear, out), deviation, grads[0]), {}};
  }
};

}  // namespace

at::Tensor standardize(const at::Tensor& x, const LocalMoments& local, const Moments& all,
                       double eps, const Population& population) {
  const auto task = std::make_shared<Task>(Task{population, local, all, eps});
  return Standardize::apply(x, task)[0];
}

}  // namespace halcyon::parallel
