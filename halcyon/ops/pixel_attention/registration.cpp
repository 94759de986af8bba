// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/base/error.h"
#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/pixel_attention/backends.h"
#include "halcyon/ops/pixel_attention/packing.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

// torch.ops.halcyon.*: the public operators, and the two inner ones (a forward that also returns
// the log sums, and its backward) between which autograd stands.
namespace halcyon {
namespace {

using pixel_attention_detail::Inputs;
using MaybeTensor = std::optional<at::Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Inputs checked(const at::Tensor& q, const at::Tensor& tokens, const at::Tensor& w_k,
               const at::Tensor& w_v, const MaybeTensor& b_v, const at::Tensor& cu, int64_t n_kv,
               double scale) {
  const auto total = cu.size(0) > 0 ? cu[-1].item<int64_t>() : -1;
  HALCYON_CHECK(total == tokens.size(0), "pixel_attention",
                "expected cu_seqlens_k to end with the number of tokens {}, got {}", tokens.size(0),
                total);
  return {q, tokens, w_k, w_v, b_v, cu, n_kv, scale};
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& tokens,
                                           const at::Tensor& w_k, const at::Tensor& w_v,
                                           const MaybeTensor& /*b_k*/, const MaybeTensor& b_v,
                                           const at::Tensor& cu, int64_t n_kv, double scale) {
  const auto in = checked(q, tokens, w_k, w_v, b_v, cu, n_kv, scale);
  const auto result = q.is_cpu() ? pixel_attention_detail::forward_cpu(in)
                                 : pixel_attention_detail::forward_composed(in);
  return {result.out, result.lse};
}

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& q, const at::Tensor& tokens,
                                                const at::Tensor& w_k, const at::Tensor& w_v,
                                                const MaybeTensor& /*b_k*/, const MaybeTensor& b_v,
                                                const at::Tensor& cu, int64_t n_kv, double scale) {
  const auto type = Inputs{q, tokens, w_k, w_v, b_v, cu, n_kv, scale}.accumulate();
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(0), q.sym_size(1)}, q.options().dtype(type))};
}

// Each gradient in the dtype of its input; b_v's is empty when there is none.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Gradients backward(const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& tokens,
                   const at::Tensor& w_k, const at::Tensor& w_v, const MaybeTensor& b_v,
                   const at::Tensor& cu, const at::Tensor& lse, int64_t n_kv, double scale) {
  const auto in = checked(q, tokens, w_k, w_v, b_v, cu, n_kv, scale);
  const auto g = q.is_cpu() ? pixel_attention_detail::backward_cpu(in, lse, grad_out)
                            : pixel_attention_detail::backward_composed(in, lse, grad_out);
  return {g.q.to(q.scalar_type()), g.tokens.to(tokens.scalar_type()), g.w_k.to(w_k.scalar_type()),
          g.w_v.to(w_v.scalar_type()),
          b_v ? g.b_v.to(b_v->scalar_type()) : at::empty({0}, q.options())};
}

Gradients backward_meta(const at::Tensor& /*grad_out*/, const at::Tensor& q,
                        const at::Tensor& tokens, const at::Tensor& w_k, const at::Tensor& w_v,
                        const MaybeTensor& b_v, const at::Tensor& /*cu*/, const at::Tensor& /*lse*/,
                        int64_t /*n_kv*/, double /*scale*/) {
  const auto like = [](const at::Tensor& t) {
    return at::empty_symint(t.sym_sizes(), t.options());
  };
  return {like(q), like(tokens), like(w_k), like(w_v),
          b_v ? like(*b_v) : at::empty({0}, q.options())};
}

struct PixelAttention : torch::autograd::Function<PixelAttention> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q,
                               const at::Tensor& tokens, const at::Tensor& w_k,
                               const at::Tensor& w_v, const MaybeTensor& b_k,
                               const MaybeTensor& b_v, const at::Tensor& cu, int64_t n_kv,
                               double scale) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_pixel_attention");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, lse] = op.call(q, tokens, w_k, w_v, b_k, b_v, cu, n_kv, scale);
    context->save_for_backward(
        {q, tokens, w_k, w_v, b_k.value_or(at::Tensor()), b_v.value_or(at::Tensor()), cu, lse});
    context->saved_data["n_kv"] = n_kv;
    context->saved_data["scale"] = scale;
    context->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad_out) {
    check_first_derivative("pixel_attention");
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_pixel_attention_backward");
    const auto saved = context->get_saved_variables();
    const auto &b_k = saved[4], &b_v = saved[5];
    const auto [q, tokens, w_k, w_v, bias] =
        op.call(grad_out[0], saved[0], saved[1], saved[2], saved[3],
                b_v.defined() ? MaybeTensor(b_v) : std::nullopt, saved[6], saved[7],
                context->saved_data["n_kv"].toInt(), context->saved_data["scale"].toDouble());
    return {q,
            tokens,
            w_k,
            w_v,
            b_k.defined() ? at::zeros_like(b_k) : at::Tensor(),
            b_v.defined() ? bias : at::Tensor(),
            {},
            {},
            {}};
  }
};

std::tuple<at::Tensor, at::Tensor> forward_autograd(const at::Tensor& q, const at::Tensor& tokens,
                                                    const at::Tensor& w_k, const at::Tensor& w_v,
                                                    const MaybeTensor& b_k, const MaybeTensor& b_v,
                                                    const at::Tensor& cu, int64_t n_kv,
                                                    double scale) {
  const auto result = PixelAttention::apply(q, tokens, w_k, w_v, b_k, b_v, cu, n_kv, scale);
  return {result[0], result[1]};
}

at::Tensor public_pixel_attention(const at::Tensor& q, const at::Tensor& tokens,
                                  const at::Tensor& w_k, const at::Tensor& w_v,
                                  const at::Tensor& cu, c10::SymInt max_seqlen_k,
                                  int64_t n_kv_heads, std::optional<double> scale,
                                  const MaybeTensor& b_k, const MaybeTensor& b_v, bool force_fp32,
                                  const MaybeTensor& program_ptr,
                                  const MaybeTensor& program_pixels) {
  HALCYON_CHECK(program_ptr.has_value() == program_pixels.has_value(), "pixel_attention",
                "expected program_ptr and program_pixels together, got one of them");
  std::optional<PixelGroupMap> map;
  if (program_ptr) map = PixelGroupMap{*program_ptr, *program_pixels};
  // a hint: graphs are not made for one value of it
  return pixel_attention(q, tokens, w_k, w_v, cu, max_seqlen_k.maybe_as_int().value_or(0),
                         n_kv_heads, scale, b_k, b_v, force_fp32, map);
}

std::tuple<at::Tensor, at::Tensor> group_map_tensors(const at::Tensor& cu, double thresh_mult) {
  const auto map = build_pixel_group_map(cu, thresh_mult);
  return {map.program_ptr, map.program_pixels};
}

std::tuple<at::Tensor, at::Tensor> sort_meta(const at::Tensor& flat_idx, c10::SymInt total) {
  const auto options = flat_idx.options();
  return {at::empty_symint({flat_idx.sym_size(0)}, options.dtype(at::kInt)),
          at::empty_symint({total}, options.dtype(at::kLong))};
}

at::Tensor offsets_meta(const at::Tensor& counts) {
  return at::empty_symint({counts.sym_size(0) + 1}, counts.options().dtype(at::kInt));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def(
      "pixel_attention(Tensor Q, Tensor tokens, Tensor W_k, Tensor W_v, Tensor cu_seqlens_k, "
      "SymInt max_seqlen_k, int n_kv_heads=1, float? scale=None, Tensor? B_k=None, "
      "Tensor? B_v=None, bool force_fp32=False, Tensor? program_ptr=None, "
      "Tensor? program_pixels=None) -> Tensor",
      torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd,
                      TORCH_FN(public_pixel_attention)));
  m.def(
      "_pixel_attention(Tensor q, Tensor tokens, Tensor w_k, Tensor w_v, Tensor? b_k, Tensor? b_v, "
      "Tensor cu_seqlens, int n_kv, float scale) -> (Tensor, Tensor)");
  m.def(
      "_pixel_attention_backward(Tensor grad_out, Tensor q, Tensor tokens, Tensor w_k, Tensor w_v, "
      "Tensor? b_v, Tensor cu_seqlens, Tensor lse, int n_kv, float scale) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("sort_and_pack(Tensor flat_idx, SymInt total_pixels) -> (Tensor, Tensor)");
  m.def("counts_to_cu_seqlens(Tensor counts) -> Tensor");
  m.def("build_pixel_group_map(Tensor cu_seqlens_k, float thresh_mult=2.0) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CompositeExplicitAutograd, m) {
  m.impl("_pixel_attention", TORCH_FN(forward));
  m.impl("_pixel_attention_backward", TORCH_FN(backward));
  m.impl("sort_and_pack", [](const at::Tensor& flat_idx, c10::SymInt total) {
    return sort_and_pack(flat_idx, total.expect_int());
  });
  m.impl("counts_to_cu_seqlens", TORCH_FN(counts_to_cu_seqlens));
  m.impl("build_pixel_group_map", TORCH_FN(group_map_tensors));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_pixel_attention", TORCH_FN(forward_meta));
  m.impl("_pixel_attention_backward", TORCH_FN(backward_meta));
  m.impl("sort_and_pack", TORCH_FN(sort_meta));
  m.impl("counts_to_cu_seqlens", TORCH_FN(offsets_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_pixel_attention", TORCH_FN(forward_autograd));
}

}  // namespace halcyon
