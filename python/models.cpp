// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/error.h"
#include "halcyon/model/healda.h"
#include "python/arguments.h"
#include "python/bind_module.h"
#include "python/bindings.h"
#include "python/foreign_modules.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using OptionalTensor = std::optional<at::Tensor>;

namespace {

CrossAttentionFactory cross_attention_factory(const py::object& given) {
  if (given.is_none()) return {};
  PixelCrossAttentionOptions options;
  Arguments("cross_attention", given)
      .require("hidden_size", options.hidden_size)
      .require("token_dim", options.token_dim)
      .require("n_q_heads", options.n_q_heads)
      .require("n_kv_heads", options.n_kv_heads)
      .require("d_head", options.d_head)
      .read("use_proj_bias", options.use_proj_bias)
      .finish();
  return pixel_cross_attention(options);
}

TemporalKwargs temporal_kwargs(const py::object& given) {
  TemporalKwargs kwargs;
  Arguments("temporal_kwargs", given)
      .read("linear_attention", kwargs.linear_attention)
      .read("causal_window", kwargs.causal_window)
      .finish();
  return kwargs;
}

QkNormKwargs qk_norm_kwargs(const py::object& given) {
  QkNormKwargs kwargs;
  Arguments("attn_kwargs", given)
      .read("qk_norm_type", kwargs.qk_norm_type)
      .read("qk_norm_affine", kwargs.qk_norm_affine)
      .read("qk_norm_eps", kwargs.qk_norm_eps)
      .finish();
  return kwargs;
}

SpatialAttentionKwargs spatial_kwargs(const py::object& given) {
  SpatialAttentionKwargs kwargs;
  Arguments("attn_kwargs", given).read("attn_mask", kwargs.attn_mask).finish();
  return kwargs;
}

std::any cross_kwargs(const py::object& given) {
  if (given.is_none()) return {};
  PixelCrossAttentionKwargs kwargs;
  Arguments("cross_attn_kwargs", given)
      .read("tokens", kwargs.tokens)
      .read("cu_seqlens_k", kwargs.cu_seqlens_k)
      .read("max_seqlen_k", kwargs.max_seqlen_k)
      .read("group_map", kwargs.group_map)
      .finish();
  return kwargs;
}

RopeTables rope_kwargs(const py::object& given) {
  RopeTables tables;
  Arguments("temporal_attn_kwargs", given)
      .read("rope_cos", tables.rope_cos)
      .read("rope_sin", tables.rope_sin)
      .finish();
  return tables;
}

// What VideoDiTBlock and VideoDiT have in common.
template <class Options>
void read_shared(Arguments& arguments, Options& options) {
  arguments.read("hidden_size", options.hidden_size)
      .read("num_heads", options.num_heads)
      .read("attention_backend", options.attention_backend)
      .read("layernorm_backend", options.layernorm_backend)
      .read("mlp_ratio", options.mlp_ratio)
      .read("drop_path", options.drop_path)
      .read("temporal_attention", options.temporal_attention)
      .read("use_rope", options.use_rope)
      .read("is_causal", options.is_causal)
      .read("adaln_zero_init", options.adaln_zero_init);
  options.temporal_kwargs = temporal_kwargs(arguments.get("temporal_kwargs"));
  options.cross_attention = cross_attention_factory(arguments.get("cross_attention"));
  options.attn_kwargs = qk_norm_kwargs(arguments.get("attn_kwargs"));
}

template <class Options>
Arguments& read_dropouts(Arguments& arguments, Options& options) {
  return arguments.read("norm_eps", options.norm_eps)
      .read("attn_drop_rate", options.attn_drop_rate)
      .read("proj_drop_rate", options.proj_drop_rate)
      .read("mlp_drop_rate", options.mlp_drop_rate)
      .read("final_mlp_dropout", options.final_mlp_dropout);
}

std::shared_ptr<VideoDiTBlockImpl> make_block(const py::dict& given) {
  VideoDiTBlockOptions options;
  Arguments arguments("VideoDiTBlock", given);
  read_shared(arguments, options);
  read_dropouts(arguments, options)
      .read("condition_embed_dim", options.condition_embed_dim)
      .finish();
  return std::make_shared<VideoDiTBlockImpl>(std::move(options));
}

std::shared_ptr<VideoDiTImpl> make_video_dit(const py::object& tokenizer,
                                             const py::object& detokenizer, const py::dict& given) {
  VideoDiTOptions options;
  Arguments arguments("VideoDiT", given);
  read_shared(arguments, options);
  arguments.read("num_layers", options.num_layers)
      .read("emb_channels", options.emb_channels)
      .read("noise_channels", options.noise_channels)
      .read("condition_dim", options.condition_dim)
      .read("rope_base", options.rope_base)
      .read("max_seq_len", options.max_seq_len)
      .read("drop_path_rates", options.drop_path_rates)
      .read("conditioning_embedder", options.conditioning_embedder)
      .read("dit_initialization", options.dit_initialization);
  Arguments block("block_kwargs", arguments.get("block_kwargs"));
  read_dropouts(block, options.block_kwargs).finish();
  auto& embedder = options.conditioning_embedder_kwargs;
  Arguments("conditioning_embedder_kwargs", arguments.get("conditioning_embedder_kwargs"))
      .read("condition_dropout", embedder.condition_dropout)
      .read("legacy_condition_bias", embedder.legacy_condition_bias)
      .read("max_positions", embedder.max_positions)
      .finish();
  arguments.finish();
  return std::make_shared<VideoDiTImpl>(tokenizer_of(tokenizer), detokenizer_of(detokenizer),
                                        std::move(options));
}

std::shared_ptr<HealDAImpl> make_healda(const std::string& arguments) {
  HealDAConfig config;
  try {
    config = HealDAConfig::from_json(nlohmann::ordered_json::parse(arguments));
  } catch (const Error& e) {
    throw Error(ErrorKind::argument, e.what());  // here they are a call's arguments, not a file's
  }
  return std::make_shared<HealDAImpl>(std::move(config));
}

// A target is a group that the caller made; there is none to fall back on.
template <class Impl>
void set_context_parallel(Impl& self, const py::object& mode, const py::object& target) {
  if (mode.is_none()) return self.set_context_parallel(std::nullopt);
  const std::string name = py::str(mode);
  context_parallel(name, parallel::Group::alone());  // a wrong mode before a wrong target
  if (target.is_none()) {
    throw py::type_error(
        "[set_context_parallel] expected target as a torch.distributed.ProcessGroup, got None");
  }
  self.set_context_parallel(name, target.cast<parallel::Group>());
}

}  // namespace

void add_models(py::module_& m) {
  bind_module<VideoDiTBlockImpl>(m, "VideoDiTBlock")
      .def(py::init(&make_block))
      .def("forward",
           [](VideoDiTBlockImpl& self, const at::Tensor& hidden_states, const at::Tensor& c,
              const py::object& attn, const py::object& cross, const py::object& temporal) {
             const auto spatial = spatial_kwargs(attn);
             const auto observations = cross_kwargs(cross);
             const auto tables = rope_kwargs(temporal);
             const py::gil_scoped_release unlocked;
             return self.forward(hidden_states, c, spatial, observations, tables);
           });
  bind_module<VideoDiTImpl>(m, "VideoDiT")
      .def(py::init(&make_video_dit))
      .def("forward",
           [](VideoDiTImpl& self, const at::Tensor& x, const at::Tensor& t,
              const OptionalTensor& condition, const py::object& attn, const py::object& cross,
              const py::object& temporal, const py::object& tokenizer) {
             const auto spatial = spatial_kwargs(attn);
             const auto observations = cross_kwargs(cross);
             const auto tables = rope_kwargs(temporal);
             const auto calendar = tokenizer_kwargs(self, tokenizer);
             const py::gil_scoped_release unlocked;
             return self.forward(x, t, condition, spatial, observations, tables, calendar);
           })
      .def("set_context_parallel", &set_context_parallel<VideoDiTImpl>);
  bind_module<HealDAImpl>(m, "HealDA")
      .def(py::init(&make_healda))
      .def("config", [](const HealDAImpl& self) { return self.config().to_json().dump(); })
      .def("prepare_inference", &HealDAImpl::prepare_inference, Unlocked())
      .def("set_context_parallel", &set_context_parallel<HealDAImpl>)
      .def("forward", &HealDAImpl::forward, Unlocked());
}

}  // namespace halcyon::python
