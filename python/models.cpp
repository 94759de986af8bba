// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/error.h"
#include "halcyon/model/healda.h"
#include "python/arguments.h"
#include "python/cpp_module.h"
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
  const nn::ParametersGuard mode(nn::Parameters::placeholders);
  return std::make_shared<VideoDiTBlockImpl>(std::move(options));
}

// Stand where the caller's modules will.
struct NoTokenizer : TokenizerBase {
  at::Tensor tokenize(const at::Tensor& x, const std::any& /*kwargs*/) override { return x; }
};
struct NoDetokenizer : DetokenizerBase {
  at::Tensor detokenize(const at::Tensor& tokens, const at::Tensor& /*c*/) override {
    return tokens;
  }
};

void check_video_dit(const py::dict& given) {
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
  const nn::ParametersGuard mode(nn::Parameters::placeholders);
  VideoDiTImpl(std::make_shared<NoTokenizer>(), std::make_shared<NoDetokenizer>(),
               std::move(options));
}

std::shared_ptr<HealDAImpl> make_healda(const std::string& arguments) {
  HealDAConfig config;
  try {
    config = HealDAConfig::from_json(nlohmann::ordered_json::parse(arguments));
  } catch (const Error& e) {
    throw Error(ErrorKind::argument, e.what());  // here they are a call's arguments, not a file's
  }
  return std::make_shared<HealDAImpl>(std::move(config), nn::Parameters::placeholders);
}

using GroupMapTensors = std::tuple<at::Tensor, at::Tensor>;

ObsContext context_of(at::Tensor obs, at::Tensor metadata, at::Tensor types, at::Tensor channels,
                      at::Tensor platforms, at::Tensor offsets, int64_t longest,
                      const std::optional<GroupMapTensors>& map) {
  std::optional<PixelGroupMap> groups;
  if (map) groups = PixelGroupMap{std::get<0>(*map), std::get<1>(*map)};
  return {std::move(obs),       std::move(metadata), std::move(types), std::move(channels),
          std::move(platforms), std::move(offsets),  longest,          std::move(groups)};
}

// Of a ContextParallel, or none.
template <class Impl>
void set_context_parallel(Impl& self, const std::optional<std::string>& mode,
                          const py::object& target) {
  if (!mode) return self.set_context_parallel(std::nullopt);
  self.set_context_parallel(mode, target.cast<parallel::Group>());
}

}  // namespace

void add_models(py::module_& m) {
  bind_module<VideoDiTBlockImpl>(m, "VideoDiTBlock")
      .def(py::init(&make_block))
      .def(
          "forward",
          [](VideoDiTBlockImpl& self, const at::Tensor& hidden_states, const at::Tensor& c,
             const OptionalTensor& tokens, const OptionalTensor& cu_seqlens_k,
             const OptionalTensor& rope_cos, const OptionalTensor& rope_sin) {
            std::any cross;
            if (tokens) cross = PixelCrossAttentionKwargs{*tokens, *cu_seqlens_k, 0, {}};
            return self.forward(hidden_states, c, {}, cross, {rope_cos, rope_sin});
          },
          Unlocked());
  m.def("VideoDiT", &check_video_dit);
  m.def("healda_config", [](const std::string& arguments) {
    return make_healda(arguments)->config().to_json().dump();
  });
  bind_module<HealDAImpl>(m, "HealDA")
      .def(py::init(
          [](const std::string& arguments, const std::map<std::string, at::Tensor>& tensors) {
            auto model = make_healda(arguments);
            load_state_dict(*model, tensors, /*strict=*/true, LoadMode::assign);
            model->eval();
            return model;
          }))
      .def("prepare_inference", &HealDAImpl::prepare_inference, Unlocked())
      .def("set_context_parallel", &set_context_parallel<HealDAImpl>)
      .def(
          "forward",
          [](HealDAImpl& self, const at::Tensor& x, const at::Tensor& t, const at::Tensor& second,
             const at::Tensor& day, const at::Tensor& obs, const at::Tensor& metadata,
             const at::Tensor& types, const at::Tensor& channels, const at::Tensor& platforms,
             const at::Tensor& offsets, int64_t longest, const std::optional<GroupMapTensors>& map,
             const OptionalTensor& labels) {
            return self.forward(
                x, t, second, day,
                context_of(obs, metadata, types, channels, platforms, offsets, longest, map),
                labels);
          },
          Unlocked());
}

}  // namespace halcyon::python
