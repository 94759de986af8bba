// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn.h"
#include "python/bind_module.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;
using Width = std::optional<int64_t>;

void add_layers(py::module_& m) {
  bind_module<AdaLNModulationImpl>(m, "AdaLNModulation")
      .def(py::init<int64_t, int64_t, int64_t, bool>())
      .def("forward", &AdaLNModulationImpl::forward, Unlocked());
  bind_module<SelfAttentionImpl>(m, "SelfAttention")
      .def(py::init<int64_t, int64_t, double, double, std::optional<std::string>, bool, bool>())
      .def("forward", &SelfAttentionImpl::forward, Unlocked());
  bind_module<SpatialSelfAttentionImpl>(m, "SpatialSelfAttention")
      .def(py::init<int64_t, int64_t, double, bool, std::string>())
      .def("forward", &SpatialSelfAttentionImpl::forward, Unlocked());
  bind_module<TemporalAttentionImpl>(m, "TemporalAttention")
      .def(py::init([](int64_t hidden_size, int64_t num_heads, bool use_rope, bool is_causal,
                       bool linear_attention, Width causal_window) {
        return std::make_shared<TemporalAttentionImpl>(TemporalAttentionOptions{
            hidden_size, num_heads, use_rope, is_causal, linear_attention, causal_window});
      }))
      .def("forward", &TemporalAttentionImpl::forward, Unlocked());
  bind_module<PixelCrossAttentionImpl>(m, "PixelCrossAttention")
      .def(py::init([](int64_t hidden_size, int64_t token_dim, int64_t n_q_heads,
                       int64_t n_kv_heads, int64_t d_head, bool use_proj_bias) {
        return std::make_shared<PixelCrossAttentionImpl>(PixelCrossAttentionOptions{
            hidden_size, token_dim, n_q_heads, n_kv_heads, d_head, use_proj_bias});
      }))
      .def(
          "forward",
          [](PixelCrossAttentionImpl& module, const at::Tensor& hidden_states,
             const std::optional<at::Tensor>& tokens, const at::Tensor& cu_seqlens_k,
             int64_t max_seqlen_k, const std::optional<PixelGroupMap>& group_map) {
            // None is refused by the module, as a ValueError
            return module.forward(hidden_states, tokens.value_or(at::Tensor()), cu_seqlens_k,
                                  max_seqlen_k, group_map);
          },
          Unlocked());
  bind_module<ObsTokenizerFiLMImpl>(m, "ObsTokenizerFiLM")
      .def(py::init([](int64_t meta_dim, int64_t out_dim, int64_t n_embed,
                       int64_t obs_type_embed_dim, Width channel_embed_dim,
                       Width platform_embed_dim, bool use_fused_mlp, Width hidden_dim) {
        return std::make_shared<ObsTokenizerFiLMImpl>(ObsTokenizerFiLMOptions{
            meta_dim, out_dim, n_embed, obs_type_embed_dim, channel_embed_dim, platform_embed_dim,
            use_fused_mlp, hidden_dim});
      }))
      .def("forward", &ObsTokenizerFiLMImpl::forward, Unlocked());
  bind_module<CalendarEmbeddingImpl>(m, "CalendarEmbedding")
      .def(py::init<at::Tensor, int64_t, bool>())
      .def("forward", &CalendarEmbeddingImpl::forward, Unlocked());
  bind_module<EDMConditionEmbedderImpl>(m, "EDMConditionEmbedder")
      .def(py::init([](int64_t emb_channels, int64_t noise_channels, int64_t condition_dim,
                       double condition_dropout, bool legacy_condition_bias, double max_positions) {
        return std::make_shared<EDMConditionEmbedderImpl>(
            EDMConditionEmbedderOptions{emb_channels, noise_channels, condition_dim,
                                        condition_dropout, legacy_condition_bias, max_positions});
      }))
      .def("forward", &EDMConditionEmbedderImpl::forward, Unlocked())
      .def("noise_features", &EDMConditionEmbedderImpl::noise_features, Unlocked());
  bind_module<HEALPixPatchTokenizerImpl>(m, "HEALPixPatchTokenizer")
      .def(py::init([](int64_t in_channels, int64_t hidden_size, int64_t level_fine,
                       int64_t level_coarse, bool separate_time_axis) {
        return std::make_shared<HEALPixPatchTokenizerImpl>(HEALPixPatchTokenizerOptions{
            in_channels, hidden_size, level_fine, level_coarse, separate_time_axis, {}});
      }))
      .def("forward", &HEALPixPatchTokenizerImpl::forward, Unlocked());
  bind_module<HEALPixPatchDetokenizerImpl>(m, "HEALPixPatchDetokenizer")
      .def(py::init([](int64_t hidden_size, int64_t out_channels, int64_t level_coarse,
                       int64_t level_fine, int64_t time_length, Width condition_dim) {
        return std::make_shared<HEALPixPatchDetokenizerImpl>(HEALPixPatchDetokenizerOptions{
            hidden_size, out_channels, level_coarse, level_fine, time_length, condition_dim, {}});
      }))
      .def("forward", &HEALPixPatchDetokenizerImpl::forward, Unlocked());
}

}  // namespace halcyon::python
