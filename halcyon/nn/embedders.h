// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "halcyon/nn/layers.h"

namespace halcyon {

// 1 / max_positions^(i / steps), i = 0 .. half - 1, in single precision: the frequencies of t.
at::Tensor frequency_ladder(int64_t half, int64_t steps, double max_positions);
// t (B,) times every frequency (half,): sines and cosines (B, 2 * half), or cosines and sines, in
// single precision at least.
at::Tensor noise_features(const at::Tensor& t, const at::Tensor& freqs, bool cosines_first = false);

// Turns the noise level and optional labels into the vector that conditions every block.
class ConditioningEmbedderBase : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;
  // t (B,), condition (B, condition_dim) -> (B, output_dim).
  virtual at::Tensor embed(const at::Tensor& t, const std::optional<at::Tensor>& condition) = 0;
  virtual int64_t output_dim() const = 0;
  // Its own initialisation, after VideoDiT has drawn all linear layers.
  virtual void initialize_weights() {}
};

struct EDMConditionEmbedderOptions {
  int64_t emb_channels = 0, noise_channels = 0, condition_dim = 0;
  double condition_dropout = 0;        // probability that a sample loses its condition in training
  bool legacy_condition_bias = false;  // map_condition even without labels: only its bias acts
  double max_positions = 10000;
};

// As in EDM (Karras et al. 2022): sines and cosines of t on a geometric ladder of frequencies, plus
// the labels' projection, then two linear layers with SiLU between. Keys map_noise.freqs (buffer),
// map_condition, map_layer0, map_layer1.
class EDMConditionEmbedderImpl : public ConditioningEmbedderBase {
 public:
  explicit EDMConditionEmbedderImpl(EDMConditionEmbedderOptions options);

  at::Tensor forward(const at::Tensor& t,
                     const std::optional<at::Tensor>& condition = std::nullopt);
  // t (B,) raw -> (B, noise_channels): sines, then cosines; without the condition.
  at::Tensor noise_features(const at::Tensor& t);

  at::Tensor embed(const at::Tensor& t, const std::optional<at::Tensor>& condition) override {
    return forward(t, condition);
  }
  int64_t output_dim() const override { return options_.emb_channels; }

 private:
  EDMConditionEmbedderOptions options_;
  at::Tensor freqs_;
  nn::Linear map_condition_{nullptr}, map_layer0_{nullptr}, map_layer1_{nullptr};
};
TORCH_MODULE(EDMConditionEmbedder);

struct DiTConditionEmbedderOptions {
  int64_t hidden_size = 0, condition_dim = 0;
  double max_positions = 10000;
};

// As in DiT: cosines and sines of t, Linear(h -> 2h), SiLU, Linear(2h -> h), plus a projection of
// the labels that is zero at first. Keys t_embedder.freqs (buffer), t_embedder.mlp.{0,2},
// cond_embedder.weight.
class DiTConditionEmbedderImpl : public ConditioningEmbedderBase {
 public:
  explicit DiTConditionEmbedderImpl(DiTConditionEmbedderOptions options);

  at::Tensor forward(const at::Tensor& t,
                     const std::optional<at::Tensor>& condition = std::nullopt);
  at::Tensor embed(const at::Tensor& t, const std::optional<at::Tensor>& condition) override {
    return forward(t, condition);
  }
  int64_t output_dim() const override { return options_.hidden_size; }
  void initialize_weights() override;

 private:
  DiTConditionEmbedderOptions options_;
  at::Tensor freqs_;
  nn::Linear first_{nullptr}, second_{nullptr}, cond_embedder_{nullptr};
};
TORCH_MODULE(DiTConditionEmbedder);

// No conditioning: (B, 0), so that every adaLN acts by its bias alone.
class ZeroConditioningEmbedderImpl : public ConditioningEmbedderBase {
 public:
  ZeroConditioningEmbedderImpl();
  at::Tensor forward(const at::Tensor& t,
                     const std::optional<at::Tensor>& condition = std::nullopt);
  at::Tensor embed(const at::Tensor& t, const std::optional<at::Tensor>& condition) override {
    return forward(t, condition);
  }
  int64_t output_dim() const override { return 0; }
};
TORCH_MODULE(ZeroConditioningEmbedder);

// Arguments of the embedders beyond their widths; what one does not know must keep its default.
struct ConditioningEmbedderKwargs {
  double condition_dropout = 0;
  bool legacy_condition_bias = false;
  double max_positions = 10000;
};

// name is "edm", "dit" or "zero", in any case. hidden_size is the output width of "dit",
// emb_channels that of "edm".
std::shared_ptr<ConditioningEmbedderBase> make_conditioning_embedder(
    std::string_view name, int64_t hidden_size, int64_t emb_channels, int64_t noise_channels,
    int64_t condition_dim, const ConditioningEmbedderKwargs& kwargs = {});

}  // namespace halcyon
