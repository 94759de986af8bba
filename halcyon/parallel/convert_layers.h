// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/modules/pooling.h>
#include <torch/nn/modules/upsampling.h>
#include <torch/nn/pimpl.h>

#include <concepts>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>

#include "halcyon/parallel/group.h"

// The layers of torch::nn that mix positions, for an input whose axis dim is cut over the ranks of
// a group. A model of your own registers them as it does torch's, under torch's options:
//
//   using namespace halcyon::parallel;
//   struct NetImpl : torch::nn::Module {
//     DomainParallelConv2d conv{torch::nn::Conv2dOptions(3, 8, 3).padding(1)};
//     NetImpl() { register_module("conv", conv); }
//     ...                                         // conv->forward(x)
//   };
//   Net net;
//   convert(net, group, -1);                      // or conv->shard(group, -1)
//
// They follow the default group and dim -2 (the last axis where only one is spatial) until shard()
// or convert() (convert.h) says otherwise: in a process alone they are torch's. Parameters and
// buffers are whole, under torch's names, so that what torch's layer saved is read and vice versa;
// gradients are this rank's contribution (reduce_gradients.h).
namespace halcyon::parallel {

// What they have in common, whatever torch's layer.
class DomainParallelLayer {
 public:
  virtual ~DomainParallelLayer() = default;
  // dim: the sharded axis, as parallel::conv and the like take it; normalisation over the batch
  // needs none. A copy of the layer speaks of the same group.
  void shard(Group group, int64_t dim) { sharding_ = Sharding{std::move(group), dim}; }
  bool is_sharded() const { return sharding_.has_value(); }
  // Why shard() along dim is not for this layer; empty where it is.
  virtual std::string why_not(int64_t dim) const = 0;

 protected:
  struct Sharding {
    Group group;
    int64_t dim;
  };
  DomainParallelLayer() = default;
  DomainParallelLayer(const DomainParallelLayer&) = default;
  DomainParallelLayer& operator=(const DomainParallelLayer&) = default;
  std::optional<Sharding> sharding_;
};

// Not derived of torch's layer, whose forward() is not virtual: through its class a caller would
// get one rank's part only, and a parent's clone() would forget the group.
template <typename Layer>
class DomainParallel : public torch::nn::Cloneable<DomainParallel<Layer>>,
                       public DomainParallelLayer {
 public:
  // Made as torch's layer is.
  template <typename... Arguments>
  requires std::constructible_from<Layer, Arguments...>
  explicit DomainParallel(Arguments&&... arguments)
      : DomainParallel(std::make_shared<Layer>(std::forward<Arguments>(arguments)...)) {}
  // In the place of a layer: its very tensors under their names, its mode.
  explicit DomainParallel(std::shared_ptr<Layer> layer);

  // This rank's part of what torch's layer gives for the whole x; a 1x1 convolution of stride 1
  // without padding does so without the other ranks. Otherwise collective; Error(argument) on every
  // rank where parallel::conv and the like say so, on this rank where its x has not the axes of a
  // BatchNorm or a transposed convolution pads with anything but zeros.
  at::Tensor forward(const at::Tensor& x);

  // torch's layer of the same tensors, for its options, weight and bias.
  Layer& layer() { return *layer_; }
  const Layer& layer() const { return *layer_; }

  void reset() override;  // for clone()
  void pretty_print(std::ostream& stream) const override;
  std::string why_not(int64_t dim) const override;

 private:
  void take_over();
  std::shared_ptr<Layer> layer_;
};

template <typename Layer>
using DomainParallelHolder = torch::nn::ModuleHolder<DomainParallel<Layer>>;

using DomainParallelConv1d = DomainParallelHolder<torch::nn::Conv1dImpl>;
using DomainParallelConv2d = DomainParallelHolder<torch::nn::Conv2dImpl>;
using DomainParallelConv3d = DomainParallelHolder<torch::nn::Conv3dImpl>;
using DomainParallelConvTranspose1d = DomainParallelHolder<torch::nn::ConvTranspose1dImpl>;
using DomainParallelConvTranspose2d = DomainParallelHolder<torch::nn::ConvTranspose2dImpl>;
using DomainParallelConvTranspose3d = DomainParallelHolder<torch::nn::ConvTranspose3dImpl>;
using DomainParallelMaxPool1d = DomainParallelHolder<torch::nn::MaxPool1dImpl>;
using DomainParallelMaxPool2d = DomainParallelHolder<torch::nn::MaxPool2dImpl>;
using DomainParallelMaxPool3d = DomainParallelHolder<torch::nn::MaxPool3dImpl>;
using DomainParallelAvgPool1d = DomainParallelHolder<torch::nn::AvgPool1dImpl>;
using DomainParallelAvgPool2d = DomainParallelHolder<torch::nn::AvgPool2dImpl>;
using DomainParallelAvgPool3d = DomainParallelHolder<torch::nn::AvgPool3dImpl>;
using DomainParallelUpsample = DomainParallelHolder<torch::nn::UpsampleImpl>;
using DomainParallelGroupNorm = DomainParallelHolder<torch::nn::GroupNormImpl>;
using DomainParallelLayerNorm = DomainParallelHolder<torch::nn::LayerNormImpl>;
using DomainParallelBatchNorm1d = DomainParallelHolder<torch::nn::BatchNorm1dImpl>;
using DomainParallelBatchNorm2d = DomainParallelHolder<torch::nn::BatchNorm2dImpl>;
using DomainParallelBatchNorm3d = DomainParallelHolder<torch::nn::BatchNorm3dImpl>;

}  // namespace halcyon::parallel
