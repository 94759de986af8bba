// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/modules/container/sequential.h>

#include <vector>

#include "halcyon/nn/layers.h"

namespace halcyon {

// What one adaLN sub-block adds to its LayerNorm and to its residual; each (B, C).
struct Modulation {
  at::Tensor shift, scale, gate;
};

// The projection of adaLN-Zero (Peebles and Xie 2023, "Scalable diffusion models with
// transformers"): Linear(SiLU(c)) cut into shift, scale, gate of block 0, then of block 1, ... Keys
// modulation.1.weight and .bias, which zero_init sets to zero.
class AdaLNModulationImpl : public torch::nn::Module {
 public:
  AdaLNModulationImpl(int64_t embedding_dim, int64_t condition_embed_dim, int64_t n_blocks = 1,
                      bool zero_init = true);

  // c (B, condition_embed_dim) -> 3 * n_blocks tensors (B, embedding_dim).
  std::vector<at::Tensor> forward(const at::Tensor& c);
  // The same, three by three.
  std::vector<Modulation> modulations(const at::Tensor& c);

  const nn::Linear& projection() const { return projection_; }

 private:
  int64_t n_blocks_;
  nn::Linear projection_;
};
TORCH_MODULE(AdaLNModulation);

}  // namespace halcyon
