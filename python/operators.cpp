// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/adaln/adaln.h"
#include "halcyon/ops/film/film_tokenizer.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"
#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/temporal.h"
#include "python/bind_module.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;
using py::arg;

void add_operators(py::module_& m) {
  m.def("pixel_attention", &pixel_attention, arg("Q"), arg("tokens"), arg("W_k"), arg("W_v"),
        arg("cu_seqlens_k"), arg("max_seqlen_k"), arg("n_kv_heads") = 1, arg("scale") = py::none(),
        arg("B_k") = py::none(), arg("B_v") = py::none(), arg("force_fp32") = false,
        arg("group_map") = py::none(), Unlocked());
  m.def("film_tokenizer", &film_tokenizer, arg("obs"), arg("float_metadata"), arg("obs_type"),
        arg("channel"), arg("platform"), py::kw_only(), arg("embed_table"),
        arg("channel_embedding"), arg("platform_embedding") = py::none(), arg("weight1"),
        arg("bias1"), arg("norm_weight"), arg("norm_bias"), arg("weight2"), arg("bias2"),
        arg("eps") = 1e-5, Unlocked());
  m.def("sort_and_pack", &sort_and_pack, arg("flat_idx"), arg("total_pixels"), Unlocked());
  m.def("counts_to_cu_seqlens", &counts_to_cu_seqlens, arg("counts"), Unlocked());
  m.def("build_pixel_group_map", &build_pixel_group_map, arg("cu_seqlens_k"),
        arg("thresh_mult") = 2.0, Unlocked());
  m.def("prepare_obs_context", &prepare_obs_context, arg("obs"), arg("float_metadata"),
        arg("obs_type"), arg("channel"), arg("platform"), arg("flat_idx"), arg("total_pixels"),
        py::kw_only(), arg("build_group_map") = true, arg("group_thresh_mult") = 2.0, Unlocked());
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
