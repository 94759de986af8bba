// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/film/backends.h"
#include "halcyon/ops/film/film_tokenizer.h"

// torch.ops.halcyon.film_tokenizer, and the two inner operators between which autograd stands.
namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// In this type, which autocast decides where the call is made or traced.
at::Tensor forward(at::TensorList floats, at::TensorList ids, double eps, at::ScalarType type) {
  return film_detail::forward_cpu({floats.vec(), ids.vec(), eps}).to(type);
}

std::vector<at::Tensor> backward(const at::Tensor& grad_out, at::TensorList floats,
                                 at::TensorList ids, double eps, bool of_metadata) {
  return film_detail::backward_cpu({floats.vec(), ids.vec(), eps}, grad_out, of_metadata);
}

at::Tensor forward_meta(at::TensorList floats, at::TensorList /*ids*/, double /*eps*/,
                        at::ScalarType type) {
  const auto& obs = floats[film_detail::kObs];
  return at::empty_symint({obs.sym_size(0), floats[film_detail::kWeight2].sym_size(0) / 2},
                          obs.options().dtype(type));
}

std::vector<at::Tensor> backward_meta(const at::Tensor& /*grad_out*/, at::TensorList floats,
                                      at::TensorList /*ids*/, double /*eps*/, bool of_metadata) {
  std::vector<at::Tensor> grad;
  for (const auto& t : floats) grad.push_back(at::empty_symint(t.sym_sizes(), t.options()));
  if (!of_metadata) grad[film_detail::kMeta] = grad[film_detail::kMeta].slice(0, 0, 0);
  return grad;
}

struct FilmTokenizer : torch::autograd::Function<FilmTokenizer> {
  static at::Tensor forward(AutogradContext* context, at::TensorList floats, at::TensorList ids,
                            double eps, at::ScalarType type) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_film_tokenizer");
    at::AutoDispatchBelowADInplaceOrView below;
    variable_list saved = floats.vec();
    saved.insert(saved.end(), ids.begin(), ids.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["tables"] = static_cast<int64_t>(ids.size());
    context->saved_data["eps"] = eps;
    return op.call(floats, ids, eps, type);
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("film_tokenizer");
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_film_tokenizer_backward");
    const auto saved = context->get_saved_variables();
    const auto tables = static_cast<size_t>(context->saved_data["tables"].toInt());
    const at::TensorList all(saved);
    const bool of_metadata = context->needs_input_grad(film_detail::kMeta);
    auto grad =
        op.call(grad_out[0], all.slice(0, saved.size() - tables), all.slice(saved.size() - tables),
                context->saved_data["eps"].toDouble(), of_metadata);
    if (!of_metadata) grad[film_detail::kMeta] = at::Tensor();
    grad.resize(saved.size() + 2);  // none for the ids, eps and the type
    return grad;
  }
};

at::Tensor forward_autograd(at::TensorList floats, at::TensorList ids, double eps,
                            at::ScalarType type) {
  return FilmTokenizer::apply(floats, ids, eps, type);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def(
      "film_tokenizer(Tensor obs, Tensor float_metadata, Tensor obs_type, Tensor channel, "
      "Tensor? platform, *, Tensor embed_table, Tensor channel_embedding, "
      "Tensor? platform_embedding=None, Tensor weight1, Tensor bias1, Tensor norm_weight, "
      "Tensor norm_bias, Tensor weight2, Tensor bias2, float eps=1e-5) -> Tensor",
      torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(film_tokenizer)));
  m.def("_film_tokenizer(Tensor[] floats, Tensor[] ids, float eps, ScalarType type) -> Tensor");
  m.def(
      "_film_tokenizer_backward(Tensor grad_out, Tensor[] floats, Tensor[] ids, float eps, "
      "bool of_metadata) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_film_tokenizer", TORCH_FN(forward));
  m.impl("_film_tokenizer_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_film_tokenizer", TORCH_FN(forward_meta));
  m.impl("_film_tokenizer_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_film_tokenizer", TORCH_FN(forward_autograd));
}

}  // namespace halcyon
