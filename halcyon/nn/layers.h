// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "halcyon/ops/linear/linear.h"

// The leaves of every module: torch's layers with the same keys, arithmetic and initialisation, but
// built in any Parameters mode (torch::nn::Linear always allocates and draws its weights).
namespace halcyon::nn {

// y = x W^T + b with weight (out, in) and bias (out,); both drawn from U(+-1/sqrt(in)).
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t in_features, int64_t out_features, bool with_bias = true);
  at::Tensor forward(const at::Tensor& x);
  // activation(y), which costs less here than apart.
  at::Tensor activated(const at::Tensor& x, Activation activation);
  void pretty_print(std::ostream& stream) const override;

  int64_t in_features, out_features;
  at::Tensor weight, bias;  // bias is undefined without one
};
TORCH_MODULE(Linear);

// Over the last axis; weight one and bias zero at first.
class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(int64_t width, double epsilon);
  at::Tensor forward(const at::Tensor& x);
  void pretty_print(std::ostream& stream) const override;

  double eps;
  at::Tensor weight, bias;
};
TORCH_MODULE(LayerNorm);

// x / sqrt(mean(x^2) + eps) over the last axis, times a weight that is one at first.
class RMSNormImpl : public torch::nn::Module {
 public:
  RMSNormImpl(int64_t width, double epsilon);
  at::Tensor forward(const at::Tensor& x);
  void pretty_print(std::ostream& stream) const override;

  double eps;
  at::Tensor weight;
};
TORCH_MODULE(RMSNorm);

// A table of weight (rows, width), drawn from N(0, 1).
class EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(int64_t rows, int64_t width);
  at::Tensor forward(const at::Tensor& ids);
  void pretty_print(std::ostream& stream) const override;

  at::Tensor weight;
};
TORCH_MODULE(Embedding);

// The weight and bias of a convolution whose kernel is its stride, kept in the convolution's shape;
// the patch (de)tokenizers apply it as a matrix. Both drawn from U(+-1/sqrt(fan_in)).
class PatchConvImpl : public torch::nn::Module {
 public:
  PatchConvImpl(at::IntArrayRef weight_shape, int64_t out_channels, int64_t fan_in);
  void pretty_print(std::ostream& stream) const override;

  at::Tensor weight, bias;
};
TORCH_MODULE(PatchConv);

}  // namespace halcyon::nn
