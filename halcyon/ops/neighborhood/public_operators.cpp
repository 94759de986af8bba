// SPDX-License-Identifier: Apache-2.0
// torch.ops.halcyon.na1d and its kin: the public functions as registered operators, for graphs.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "halcyon/ops/neighborhood/unfused.h"

namespace halcyon {
namespace {

using MaybeTensor = std::optional<at::Tensor>;

template <auto kOperation>
std::tuple<at::Tensor, at::Tensor> public_operator(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    at::IntArrayRef kernel_size, at::IntArrayRef dilation, at::IntArrayRef stride,
    at::IntArrayRef is_causal, at::IntArrayRef periodic, const MaybeTensor& rpb,
    std::optional<double> scale, const MaybeTensor& additional_keys,
    const MaybeTensor& additional_values, c10::string_view backend) {
  const auto result =
      kOperation(query, key, value,
                 {kernel_size.vec(), dilation.vec(), stride.vec(), is_causal.vec(), periodic.vec(),
                  rpb, scale, additional_keys, additional_values, std::string(backend)});
  return {result.out, result.lse};
}

constexpr auto kFused =
    "(Tensor query, Tensor key, Tensor value, int[] kernel_size, int[] dilation=[1], "
    "int[] stride=[1], int[] is_causal=[0], int[] periodic=[0], Tensor? rpb=None, "
    "float? scale=None, Tensor? additional_keys=None, Tensor? additional_values=None, "
    "str backend=\"\") -> (Tensor, Tensor)";

std::tuple<at::Tensor, at::Tensor> public_attention(const at::Tensor& query, const at::Tensor& key,
                                                    const at::Tensor& value, bool is_causal,
                                                    std::optional<double> scale,
                                                    at::OptionalIntArrayRef seqlens_q,
                                                    at::OptionalIntArrayRef seqlens_kv,
                                                    bool with_lse) {
  AttentionOptions options{is_causal, scale, {}, {}, with_lse};
  if (seqlens_q) options.seqlens_q = seqlens_q->vec();
  if (seqlens_kv) options.seqlens_kv = seqlens_kv->vec();
  const auto result = attention(query, key, value, options);
  return {result.out, result.lse.defined() ? result.lse : at::empty({0}, query.options())};
}

std::tuple<at::Tensor, at::Tensor> public_varlen(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    at::IntArrayRef seqlens, at::IntArrayRef kernel_size, at::IntArrayRef dilation,
    at::IntArrayRef stride, at::IntArrayRef is_causal, at::IntArrayRef periodic,
    const MaybeTensor& rpb, std::optional<double> scale, c10::string_view backend) {
  const auto result = na1d_varlen(query, key, value, seqlens.vec(),
                                  {kernel_size.vec(),
                                   dilation.vec(),
                                   stride.vec(),
                                   is_causal.vec(),
                                   periodic.vec(),
                                   rpb,
                                   scale,
                                   {},
                                   {},
                                   std::string(backend)});
  return {result.out, result.lse};
}

std::tuple<at::Tensor, at::Tensor> public_merge(at::TensorList outputs, at::TensorList lses) {
  const auto result = merge_attentions(outputs, lses);
  return {result.out, result.lse};
}

NeighborhoodOptions unfused_options(at::IntArrayRef kernel_size, at::IntArrayRef dilation,
                                    at::IntArrayRef stride, at::IntArrayRef is_causal,
                                    at::IntArrayRef periodic) {
  NeighborhoodOptions options;
  options.kernel_size = kernel_size.vec();
  options.dilation = dilation.vec();
  options.stride = stride.vec();
  options.is_causal = is_causal.vec();
  options.periodic = periodic.vec();
  return options;
}

at::Tensor public_qk(int64_t rank, const at::Tensor& query, const at::Tensor& key,
                     at::IntArrayRef kernel_size, at::IntArrayRef dilation, at::IntArrayRef stride,
                     at::IntArrayRef is_causal, at::IntArrayRef periodic,
                     const MaybeTensor& additional_keys, const MaybeTensor& rpb) {
  auto options = unfused_options(kernel_size, dilation, stride, is_causal, periodic);
  options.additional_keys = additional_keys;
  options.rpb = rpb;
  return na_qk(static_cast<int>(rank), query, key, options);
}

at::Tensor public_av(int64_t rank, const at::Tensor& attn, const at::Tensor& value,
                     at::IntArrayRef kernel_size, at::IntArrayRef dilation, at::IntArrayRef stride,
                     at::IntArrayRef is_causal, at::IntArrayRef periodic,
                     const MaybeTensor& additional_values) {
  auto options = unfused_options(kernel_size, dilation, stride, is_causal, periodic);
  options.additional_values = additional_values;
  return na_av(static_cast<int>(rank), attn, value, options);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  const auto composite = c10::DispatchKey::CompositeImplicitAutograd;
  m.def(("na1d" + std::string(kFused)).c_str(),
        torch::dispatch(composite, TORCH_FN(public_operator<na1d>)));
  m.def(("na2d" + std::string(kFused)).c_str(),
        torch::dispatch(composite, TORCH_FN(public_operator<na2d>)));
  m.def(("na3d" + std::string(kFused)).c_str(),
        torch::dispatch(composite, TORCH_FN(public_operator<na3d>)));
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, bool is_causal=False, float? scale=None, "
      "int[]? seqlens_q=None, int[]? seqlens_kv=None, bool with_lse=True) -> (Tensor, Tensor)",
      torch::dispatch(composite, TORCH_FN(public_attention)));
  m.def(
      "na1d_varlen(Tensor query, Tensor key, Tensor value, int[] seqlens, int[] kernel_size, "
      "int[] dilation=[1], int[] stride=[1], int[] is_causal=[0], int[] periodic=[0], "
      "Tensor? rpb=None, float? scale=None, str backend=\"\") -> (Tensor, Tensor)",
      torch::dispatch(composite, TORCH_FN(public_varlen)));
  m.def("merge_attentions(Tensor[] outputs, Tensor[] lses) -> (Tensor, Tensor)",
        torch::dispatch(composite, TORCH_FN(public_merge)));
  m.def(
      "qk(int rank, Tensor query, Tensor key, int[] kernel_size, int[] dilation=[1], "
      "int[] stride=[1], int[] is_causal=[0], int[] periodic=[0], Tensor? additional_keys=None, "
      "Tensor? rpb=None) -> Tensor",
      torch::dispatch(composite, TORCH_FN(public_qk)));
  m.def(
      "av(int rank, Tensor attn, Tensor value, int[] kernel_size, int[] dilation=[1], "
      "int[] stride=[1], int[] is_causal=[0], int[] periodic=[0], "
      "Tensor? additional_values=None) -> Tensor",
      torch::dispatch(composite, TORCH_FN(public_av)));
}

}  // namespace halcyon
