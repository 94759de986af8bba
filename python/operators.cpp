// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln/adaln.h"
#include "halcyon/ops/film/film_tokenizer.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"
#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/temporal.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;
using py::arg;

namespace {

using MaybeTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor> tensors_of(const PixelGroupMap& map) {
  return {map.program_ptr, map.program_pixels};
}

}  // namespace

void add_operators(py::module_& m) {
  m.def(
      "pixel_attention",
      [](const at::Tensor& Q, const at::Tensor& tokens, const at::Tensor& W_k,
         const at::Tensor& W_v, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_k,
         int64_t n_kv_heads, std::optional<double> scale, const MaybeTensor& B_k,
         const MaybeTensor& B_v, bool force_fp32, const MaybeTensor& program_ptr,
         const MaybeTensor& program_pixels) {
        std::optional<PixelGroupMap> map;
        if (program_ptr) map = PixelGroupMap{*program_ptr, *program_pixels};
        return pixel_attention(Q, tokens, W_k, W_v, cu_seqlens_k, max_seqlen_k, n_kv_heads, scale,
                               B_k, B_v, force_fp32, map);
      },
      Unlocked());
  m.def("film_tokenizer", &film_tokenizer, arg("obs"), arg("float_metadata"), arg("obs_type"),
        arg("channel"), arg("platform"), py::kw_only(), arg("embed_table"),
        arg("channel_embedding"), arg("platform_embedding") = py::none(), arg("weight1"),
        arg("bias1"), arg("norm_weight"), arg("norm_bias"), arg("weight2"), arg("bias2"),
        arg("eps") = 1e-5, Unlocked());
  m.def("sort_and_pack", &sort_and_pack, arg("flat_idx"), arg("total_pixels"), Unlocked());
  m.def("counts_to_cu_seqlens", &counts_to_cu_seqlens, arg("counts"), Unlocked());
  m.def(
      "build_pixel_group_map",
      [](const at::Tensor& cu_seqlens_k, double thresh_mult) {
        return tensors_of(build_pixel_group_map(cu_seqlens_k, thresh_mult));
      },
      Unlocked());
  // the fields of an ObsContext, the group map as its two tensors
  m.def(
      "prepare_obs_context",
      [](const at::Tensor& obs, const at::Tensor& float_metadata, const at::Tensor& obs_type,
         const at::Tensor& channel, const at::Tensor& platform, const at::Tensor& flat_idx,
         int64_t total_pixels, bool build_group_map, double group_thresh_mult) {
        const auto c =
            prepare_obs_context(obs, float_metadata, obs_type, channel, platform, flat_idx,
                                total_pixels, build_group_map, group_thresh_mult);
        return std::tuple(c.obs, c.float_metadata, c.obs_type, c.channel, c.platform,
                          c.cu_seqlens_k, c.max_seqlen_k,
                          c.group_map ? std::optional(tensors_of(*c.group_map)) : std::nullopt);
      },
      Unlocked());
  m.def("modulate", &modulate, arg("x"), arg("shift"), arg("scale"), Unlocked());
  m.def("norm_modulate", &norm_modulate, arg("x"), arg("shift"), arg("scale"), arg("eps"),
        Unlocked());
  m.def("gated_residual", &gated_residual, arg("residual"), arg("branch"), arg("gate"), Unlocked());
  m.def("mask_causal", &mask_causal, arg("attn"), arg("linear") = true, arg("window") = py::none(),
        Unlocked());
  m.def("rope_tables", &rope_tables, arg("head_dim"), arg("seq_len"), arg("theta") = 100.0,
        Unlocked());
  m.def(
      "apply_rope",
      [](const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
        return apply_rope(x, cos, sin);
      },
      arg("x"), arg("cos"), arg("sin"), Unlocked());
}

}  // namespace halcyon::python
