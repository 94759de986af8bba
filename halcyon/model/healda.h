// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/model/healda_config.h"
#include "halcyon/model/video_dit.h"
#include "halcyon/nn/obs_tokenizer.h"
#include "halcyon/nn/parameters.h"
#include "halcyon/ops/pixel_attention/obs_context.h"

namespace halcyon {

// HealDA: an analysis from observations. Static fields on a fine HEALPix grid become tokens on a
// coarse one; in every block a token attends to its frame, to its own observations and to its past;
// the result is detokenized to the fine grid. Keys obs_tokenizer.*, dit.*.
class HealDAImpl : public torch::nn::Module {
 public:
  // placeholders builds the model without memory for its weights: a checkpoint must bring them.
  explicit HealDAImpl(HealDAConfig config = {},
                      nn::Parameters parameters = nn::Parameters::initialised);

  // x (B, in_channels, T, X_in) static fields in pad_xy order at level_in; t (B,) noise level
  // (zeros for regression); second_of_day, day_of_year (B, T); obs_ctx packed by flat index
  // ((b * T) + t) * X + pixel at level_model; class_labels (B, condition_dim) exactly when
  // condition_dim > 0. Returns (B, out_channels, T, X_in). With a region, X_in are the fine pixels
  // and X the coarse pixels of the region, ascending. Without gradients in evaluation mode the
  // blocks work in place and piece by piece: beside weights and inputs there is one activation, and
  // with frames on ranks two more of a rank's share, in the type that the attention reads.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& second_of_day,
                     const at::Tensor& day_of_year, const ObsContext& obs_ctx,
                     const std::optional<at::Tensor>& class_labels = std::nullopt);

  // As VideoDiT's (video_dit.h): x, second_of_day, day_of_year and the observations are of this
  // rank's frames, packed by ((b * t_local) + t) * X + pixel; time_length is of all ranks together.
  void set_context_parallel(const std::optional<std::string>& mode,
                            const parallel::Group& target = {});

  // For analyses at t = 0: computes once what depends on t alone, and turns to evaluation. Weights
  // and checkpoints stay as they are; train() undoes it; call it when the weights, their type and
  // their device are final. Results change by no more than rounding. Throws Error(unsupported)
  // with class labels (condition_dim > 0).
  void prepare_inference();

  const HealDAConfig& config() const { return config_; }
  const VideoDiT& dit() const { return dit_; }
  const ObsTokenizerFiLM& obs_tokenizer() const { return obs_tokenizer_; }
  int64_t pixels_in() const { return pixels_in_; }
  int64_t pixels_model() const { return pixels_model_; }

 private:
  void check(const at::Tensor& x, const at::Tensor& t, const at::Tensor& second_of_day,
             const at::Tensor& day_of_year, const ObsContext& obs_ctx,
             const std::optional<at::Tensor>& class_labels) const;

  HealDAConfig config_;
  int64_t pixels_in_ = 0, pixels_model_ = 0;
  ObsTokenizerFiLM obs_tokenizer_{nullptr};
  VideoDiT dit_{nullptr};
};
TORCH_MODULE(HealDA);

}  // namespace halcyon
