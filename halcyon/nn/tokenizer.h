// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <any>

#include "halcyon/nn/calendar.h"
#include "halcyon/nn/layers.h"
#include "halcyon/nn/patches.h"

namespace halcyon {

// What VideoDiT asks of a tokenizer; kwargs are the caller's, opaque to VideoDiT.
class TokenizerBase : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;
  // x (B, C, T, ...) -> tokens (B, T, X, hidden).
  virtual at::Tensor tokenize(const at::Tensor& x, const std::any& kwargs) = 0;
};

// The kwargs of HEALPixPatchTokenizer, both (B, T).
struct CalendarKwargs {
  at::Tensor second_of_day, day_of_year;
};

struct HEALPixPatchTokenizerOptions {
  int64_t in_channels = 0, hidden_size = 0, level_fine = 0, level_coarse = 0;
  bool separate_time_axis = false;
  std::optional<Region> region = {};  // coarse pixels at level_coarse; the whole sphere without it
};

// Patches of fine pixels become tokens on the coarse grid: (conv + calendar) + learned position.
// Keys conv.weight (hidden, in, p, p), conv.bias, pos_embed (X, hidden).
class HEALPixPatchTokenizerImpl : public TokenizerBase {
 public:
  explicit HEALPixPatchTokenizerImpl(HEALPixPatchTokenizerOptions options);

  // x (B, C, T, X_fine); second_of_day, day_of_year (B, T) -> (B, T, X, hidden) with
  // separate_time_axis, else (B, T * X, hidden), time slowest.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& second_of_day,
                     const at::Tensor& day_of_year);
  at::Tensor tokenize(const at::Tensor& x, const std::any& kwargs) override;

  const PatchGrid& grid() const { return grid_; }

 private:
  HEALPixPatchTokenizerOptions options_;
  PatchGrid grid_;
  CalendarEmbedding calendar_{nullptr};  // no submodule: it has nothing to save
  nn::PatchConv conv_{nullptr};
  at::Tensor pos_embed_;
};
TORCH_MODULE(HEALPixPatchTokenizer);

}  // namespace halcyon
