// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn.h"
#include "halcyon/nn/patches.h"
#include "python/cpp_module.h"

namespace halcyon::python {
namespace py = pybind11;
using Width = std::optional<int64_t>;

namespace {

// Longitudes of the tokens, and the positions of their fine pixels and the inverse in a region.
std::tuple<at::Tensor, std::optional<at::Tensor>, std::optional<at::Tensor>> patch_tables(
    int64_t level_fine, int64_t level_coarse, const std::optional<at::Tensor>& pixels) {
  std::optional<Region> region;
  if (pixels) {
    const auto list = pixels->to(at::kLong).contiguous();
    const auto* first = list.const_data_ptr<int64_t>();
    region = Region::of_pixels(static_cast<int>(level_coarse), {first, first + list.numel()});
  }
  const PatchGrid grid(level_fine, level_coarse, region);
  const auto table = [](const at::Tensor& t) {
    return t.defined() ? std::optional(t) : std::nullopt;
  };
  return {grid.lon(), table(grid.children()), table(grid.inverse())};
}

template <class Impl, class Options, class... Arguments>
auto with_options() {
  return py::init([](Arguments... arguments) {
    const nn::ParametersGuard mode(nn::Parameters::placeholders);
    return std::make_shared<Impl>(Options{std::move(arguments)...});
  });
}

}  // namespace

void add_layers(py::module_& m) {
  bind_module<AdaLNModulationImpl>(m, "AdaLNModulation")
      .def(without_values<AdaLNModulationImpl, int64_t, int64_t, int64_t, bool>())
      .def("forward", &AdaLNModulationImpl::forward, Unlocked());
  bind_module<SelfAttentionImpl>(m, "SelfAttention")
      .def(without_values<SelfAttentionImpl, int64_t, int64_t, double, double,
                          std::optional<std::string>, bool, bool>())
      .def("forward", &SelfAttentionImpl::forward, Unlocked());
  bind_module<SpatialSelfAttentionImpl>(m, "SpatialSelfAttention")
      .def(without_values<SpatialSelfAttentionImpl, int64_t, int64_t, double, bool, std::string>())
      .def("forward", &SpatialSelfAttentionImpl::forward, Unlocked());
  bind_module<TemporalAttentionImpl>(m, "TemporalAttention")
      .def(with_options<TemporalAttentionImpl, TemporalAttentionOptions, int64_t, int64_t, bool,
                        bool, bool, Width>())
      .def("forward", &TemporalAttentionImpl::forward, Unlocked());
  bind_module<PixelCrossAttentionImpl>(m, "PixelCrossAttention")
      .def(with_options<PixelCrossAttentionImpl, PixelCrossAttentionOptions, int64_t, int64_t,
                        int64_t, int64_t, int64_t, bool>())
      .def(
          "forward",
          [](PixelCrossAttentionImpl& self, const at::Tensor& hidden_states,
             const at::Tensor& tokens, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_k) {
            return self.forward(hidden_states, tokens, cu_seqlens_k, max_seqlen_k);
          },
          Unlocked());
  bind_module<ObsTokenizerFiLMImpl>(m, "ObsTokenizerFiLM")
      .def(with_options<ObsTokenizerFiLMImpl, ObsTokenizerFiLMOptions, int64_t, int64_t, int64_t,
                        int64_t, Width, Width, bool, Width>())
      .def("forward", &ObsTokenizerFiLMImpl::forward, Unlocked());
  bind_module<CalendarEmbeddingImpl>(m, "CalendarEmbedding")
      .def(py::init<at::Tensor, int64_t, bool>())
      .def("frequencies", &CalendarEmbeddingImpl::frequencies)
      .def("forward", &CalendarEmbeddingImpl::forward, Unlocked());
  bind_module<EDMConditionEmbedderImpl>(m, "EDMConditionEmbedder")
      .def(with_options<EDMConditionEmbedderImpl, EDMConditionEmbedderOptions, int64_t, int64_t,
                        int64_t, double, bool, double>())
      .def("forward", &EDMConditionEmbedderImpl::forward, Unlocked());
  m.def("frequency_ladder", &frequency_ladder);
  bind_module<HEALPixPatchTokenizerImpl>(m, "HEALPixPatchTokenizer")
      .def(with_options<HEALPixPatchTokenizerImpl, HEALPixPatchTokenizerOptions, int64_t, int64_t,
                        int64_t, int64_t, bool>())
      .def("forward", &HEALPixPatchTokenizerImpl::forward, Unlocked());
  bind_module<HEALPixPatchDetokenizerImpl>(m, "HEALPixPatchDetokenizer")
      .def(with_options<HEALPixPatchDetokenizerImpl, HEALPixPatchDetokenizerOptions, int64_t,
                        int64_t, int64_t, int64_t, int64_t, Width>())
      .def("forward", &HEALPixPatchDetokenizerImpl::forward, Unlocked());
  m.def("patch_tables", &patch_tables);
}

}  // namespace halcyon::python
