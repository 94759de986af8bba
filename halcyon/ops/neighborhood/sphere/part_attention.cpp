// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/part_attention.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/kept.h"
#include "halcyon/ops/neighborhood/sphere/part_lists.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"

namespace halcyon::neighborhood {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Lists = std::shared_ptr<const PartLists>;

struct PartAttention : torch::autograd::Function<PartAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const Lists& lists, double scale) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto output = sphere_forward({q, k, v, &lists->of_queries, scale, &lists->of_keys});
    context->save_for_backward({q, k, v, output.out, output.lse});
    context->saved_data["scale"] = scale;
    Kept<PartLists>::keep(*context, lists);
    return output.out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    check_first_derivative("neighborhood_attention_healpix");
    const auto saved = context->get_saved_variables();
    const auto lists = Kept<PartLists>::of(*context);
    const auto delta = delta_of({saved[3], saved[4]}, grads[0], {});
    const auto grad = sphere_backward({saved[0], saved[1], saved[2], &lists->of_queries,
                                       context->saved_data["scale"].toDouble(), &lists->of_keys},
                                      saved[4], grads[0], delta);
    return {grad.query, grad.key, grad.value, {}, {}};
  }
};

}  // namespace

at::Tensor part_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const PixelWindow& window, int64_t begin, double scale) {
  return PartAttention::apply(q, k, v, part_lists(pixel_lists(window), begin, begin + q.size(1)),
                              scale);
}

}  // namespace halcyon::neighborhood
