// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/adaln.h"

#include <ATen/Functions.h>
#include <torch/nn/modules/activation.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/parameters.h"

namespace halcyon {
namespace {

constexpr const char* kName = "AdaLNModulation";

}  // namespace

AdaLNModulationImpl::AdaLNModulationImpl(int64_t embedding_dim, int64_t condition_embed_dim,
                                         int64_t n_blocks, bool zero_init)
    : torch::nn::Module(kName), n_blocks_(n_blocks), projection_(nullptr) {
  nn::check_positive(kName, "embedding_dim", embedding_dim);
  HALCYON_CHECK(condition_embed_dim >= 0, kName, "expected condition_embed_dim >= 0, got {}",
                condition_embed_dim);
  nn::check_positive(kName, "n_blocks", n_blocks);
  projection_ = nn::Linear(condition_embed_dim, 3 * n_blocks * embedding_dim);
  register_module("modulation", torch::nn::Sequential(torch::nn::SiLU(), projection_));
  if (zero_init) {
    nn::init_constant(projection_->weight, 0);
    nn::init_constant(projection_->bias, 0);
  }
}

std::vector<at::Tensor> AdaLNModulationImpl::forward(const at::Tensor& c) {
  nn::check_rank(kName, "c", c, 2, "(B, condition_embed_dim)");
  nn::check_width(kName, "c", c, projection_->in_features);
  nn::check_input(kName, "c", c, projection_->weight);
  return projection_->forward(at::silu(c)).chunk(3 * n_blocks_, -1);
}

std::vector<Modulation> AdaLNModulationImpl::modulations(const at::Tensor& c) {
  const auto chunks = forward(c);
  std::vector<Modulation> blocks;
  for (size_t i = 0; i < chunks.size(); i += 3)
    blocks.push_back({chunks[i], chunks[i + 1], chunks[i + 2]});
  return blocks;
}

}  // namespace halcyon
