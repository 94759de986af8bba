// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "halcyon/nn/projected_attention.h"
#include "halcyon/ops/neighborhood/neighborhood.h"

namespace halcyon {

// Lists have one value for all axes or one an axis, as in NeighborhoodOptions.
struct NeighborhoodAttentionOptions {
  int64_t dim = 0, num_heads = 1;
  std::vector<int64_t> kernel_size = {3}, dilation = {1}, is_causal = {0};
  bool rel_pos_bias = false;  // not with a causal axis
  bool qkv_bias = true;
  std::optional<double> qk_scale = {};
  double attn_drop = 0, proj_drop = 0;
  std::vector<int64_t> stride = {1}, periodic = {0};
  // None follows use_fused_na(). With a stride or a periodic axis the fused operator is used.
  std::optional<bool> fused = {};
};

// What the constructors check of the window, in C++ and in Python: Error(argument), or
// Error(unsupported) for a periodic axis that is causal or strided and for a bias with a causal
// axis. name is what messages call the module.
void check_neighborhood_module(const char* name, int rank, const NeighborhoodOptions& window,
                               bool rel_pos_bias);

// Neighborhood attention between two projections, over one to three axes (NATTEN's modules). Keys
// qkv.*, proj.* and, with rel_pos_bias, rpb (num_heads, 2 K0 - 1, ...), drawn from N(0, 0.02^2).
// Fused and unfused give the same within rounding. Dropping attention weights in training needs
// them in memory, so then they are, on either path.
class NeighborhoodAttentionImpl : public ProjectedAttentionImpl {
 public:
  NeighborhoodAttentionImpl(int rank, const NeighborhoodAttentionOptions& options);

  // x (B, *, dim) -> the same.
  at::Tensor forward(const at::Tensor& x);

 private:
  int rank_;
  NeighborhoodOptions window_;
  std::optional<bool> fused_;
  at::Tensor rpb_;  // undefined without one
};

class NeighborhoodAttention1DImpl : public NeighborhoodAttentionImpl {
 public:
  explicit NeighborhoodAttention1DImpl(const NeighborhoodAttentionOptions& options)
      : NeighborhoodAttentionImpl(1, options) {}
};
TORCH_MODULE(NeighborhoodAttention1D);

class NeighborhoodAttention2DImpl : public NeighborhoodAttentionImpl {
 public:
  explicit NeighborhoodAttention2DImpl(const NeighborhoodAttentionOptions& options)
      : NeighborhoodAttentionImpl(2, options) {}
};
TORCH_MODULE(NeighborhoodAttention2D);

class NeighborhoodAttention3DImpl : public NeighborhoodAttentionImpl {
 public:
  explicit NeighborhoodAttention3DImpl(const NeighborhoodAttentionOptions& options)
      : NeighborhoodAttentionImpl(3, options) {}
};
TORCH_MODULE(NeighborhoodAttention3D);

}  // namespace halcyon
