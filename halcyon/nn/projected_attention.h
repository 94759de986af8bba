// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <string>

#include "halcyon/nn/layers.h"

namespace halcyon {

// Queries, keys and values from one projection, and one of the result: what the modules of
// neighborhood attention have in common. Keys qkv.{weight,bias} with weight (3 dim, dim), which
// gives (3, heads, head width), and proj.{weight,bias}.
class ProjectedAttentionImpl : public torch::nn::Module {
 public:
  struct Options {
    int64_t dim = 0, num_heads = 1;
    bool qkv_bias = true;
    std::optional<double> qk_scale = {};  // (dim / num_heads)^-0.5 if none; 0 is 0
    double attn_drop = 0, proj_drop = 0;  // of weights and of the result, in training
  };

  double scale() const { return scale_; }

 protected:
  // Throws Error(argument), in which name is the module's: dim and num_heads of at least 1 that
  // divide, rates in 0..1, a finite scale.
  ProjectedAttentionImpl(const std::string& name, const Options& options);

  // x (B, *, dim) with this many axes * -> query, key, value (B, *, heads, width).
  std::array<at::Tensor, 3> split(const at::Tensor& x, int64_t axes);
  // y (B, *, heads, width) -> (B, *, dim).
  at::Tensor joined(const at::Tensor& y);

  // The rate at which weights drop now; above 0 they are needed in memory.
  double weight_dropout() const { return is_training() ? options_.attn_drop : 0; }

 private:
  Options options_;
  double scale_;
  nn::Linear qkv_{nullptr}, proj_{nullptr};
};

}  // namespace halcyon
