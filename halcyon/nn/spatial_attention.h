// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/region.h"

namespace halcyon {

struct SpatialAttentionOptions {
  int64_t hidden_size = 0, num_heads = 0;
  double attn_drop_rate = 0, proj_drop_rate = 0;
  std::optional<std::string> qk_norm_type = {};  // "RMSNorm", "LayerNorm" or none
  bool qk_norm_affine = true;
  std::optional<double> qk_norm_eps = {};  // 1e-6 for RMSNorm and 1e-5 for LayerNorm if none
  bool is_causal = false;
  // The pixels of the tokens, in their order, where they are known: a backend may need the
  // geometry.
  std::optional<Region> grid = {};
  // The order of the tokens, where it is known without their pixels.
  std::optional<healpix::Order> token_order = {};
};

// What a caller hands to every spatial attention layer at run time.
struct SpatialAttentionKwargs {
  std::optional<at::Tensor> attn_mask = {};
};

// Attention among the tokens of one frame: what a block asks of its spatial attention, whichever it
// is. Frames are the batch.
class SpatialAttentionBase : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;
  // x (B * T, X, C) -> the same shape.
  virtual at::Tensor attend(const at::Tensor& x, const SpatialAttentionKwargs& kwargs) = 0;
};

// Backends by name. A name may carry an argument behind a colon ("disk:10.5"): the part before it
// selects the factory, which gets the whole name. There from the start: "timm"
// (self_attention.h), and disks and rings of HEALPix pixels (healpix_self_attention.h).
using SpatialAttentionFactory = std::function<std::shared_ptr<SpatialAttentionBase>(
    std::string_view name, const SpatialAttentionOptions& options)>;
void register_spatial_attention(const std::string& name, SpatialAttentionFactory factory);
std::vector<std::string> spatial_attention_names();
// Throws Error(argument) with the known names for an unknown one.
std::shared_ptr<SpatialAttentionBase> make_spatial_attention(
    std::string_view name, const SpatialAttentionOptions& options);

}  // namespace halcyon
