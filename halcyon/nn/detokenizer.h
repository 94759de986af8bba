// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/nn/layers.h"
#include "halcyon/nn/patches.h"

namespace halcyon {

// What VideoDiT asks of a detokenizer.
class DetokenizerBase : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;
  // tokens (B, T, X, hidden), condition embedding c (B, D_c) -> the model's output.
  virtual at::Tensor detokenize(const at::Tensor& tokens, const at::Tensor& c) = 0;
  // Later calls take this condition embedding (1, D_c) for every sample, whatever c says, so that
  // what depends on it alone need be computed once. Undefined: theirs again.
  virtual void fix_condition(const at::Tensor& /*c*/) {}
  // Its own initialisation, after VideoDiT has drawn all linear layers.
  virtual void initialize_weights() {}
};

struct HEALPixPatchDetokenizerOptions {
  int64_t hidden_size = 0, out_channels = 0, level_coarse = 0, level_fine = 0, time_length = 1;
  std::optional<int64_t> condition_dim = {};  // hidden_size without it
  std::optional<Region> region = {};          // coarse pixels at level_coarse
};

// Tokens back to fine pixels: LayerNorm (eps 1e-6) with an adaptive shift and scale, then one p x p
// patch of every channel from each token. Keys adaptive_modulation.1.{weight,bias} (zero at first),
// conv_t.weight (hidden, out, p, p), conv_t.bias.
class HEALPixPatchDetokenizerImpl : public DetokenizerBase {
 public:
  explicit HEALPixPatchDetokenizerImpl(HEALPixPatchDetokenizerOptions options);

  // x (B, T, X, hidden), or flat (B, T * X, hidden) with T = time_length; c (B, condition_dim) ->
  // (B, out_channels, T, X_fine).
  at::Tensor forward(const at::Tensor& x, const at::Tensor& c);
  at::Tensor detokenize(const at::Tensor& tokens, const at::Tensor& c) override {
    return forward(tokens, c);
  }
  void fix_condition(const at::Tensor& c) override;
  void initialize_weights() override;

  const PatchGrid& grid() const { return grid_; }

 private:
  // Shift and scale of c.
  std::vector<at::Tensor> modulation_of(const at::Tensor& c);

  HEALPixPatchDetokenizerOptions options_;
  PatchGrid grid_;
  nn::Linear modulation_{nullptr};
  nn::PatchConv conv_t_{nullptr};
  std::vector<at::Tensor> fixed_;  // of the condition that is fixed, if one is
};
TORCH_MODULE(HEALPixPatchDetokenizer);

}  // namespace halcyon
