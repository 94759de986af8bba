// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/convert_reasons.h"

#include <c10/util/Type.h>
#include <fmt/format.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/moduledict.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/container/parameterdict.h>
#include <torch/nn/modules/container/parameterlist.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/pixelshuffle.h>
#include <torch/nn/modules/transformer.h>
#include <torch/nn/modules/transformercoder.h>
#include <torch/nn/modules/transformerlayer.h>

#include <optional>

namespace halcyon::parallel::convert_detail {
namespace {

namespace nn = torch::nn;

// A class derived of one of torch's may have a forward of its own: only torch's very classes are
// known.
template <typename... Classes>
bool is_one_of(const nn::Module& module) {
  return ((typeid(module) == typeid(Classes)) || ...);
}

template <typename... Classes>
bool is_derived_of(const nn::Module& module) {
  return ((dynamic_cast<const Classes*>(&module) != nullptr) || ...);
}

bool is_elementwise(const nn::Module& module) {
  return is_one_of<nn::IdentityImpl, nn::ReLUImpl, nn::ReLU6Impl, nn::LeakyReLUImpl, nn::PReLUImpl,
                   nn::RReLUImpl, nn::ELUImpl, nn::CELUImpl, nn::SELUImpl, nn::GELUImpl,
                   nn::SiLUImpl, nn::MishImpl, nn::SoftplusImpl, nn::SoftsignImpl,
                   nn::SoftshrinkImpl, nn::HardshrinkImpl, nn::HardtanhImpl, nn::SigmoidImpl,
                   nn::LogSigmoidImpl, nn::TanhImpl, nn::TanhshrinkImpl, nn::ThresholdImpl,
                   nn::DropoutImpl, nn::AlphaDropoutImpl>(module);
}

// The one axis that a softmax or gate mixes.
template <typename... Classes>
std::optional<int64_t> axis_of(const nn::Module& module) {
  std::optional<int64_t> axis;
  ((typeid(module) == typeid(Classes)
        ? void(axis = static_cast<const Classes&>(module).options.dim())
        : void()),
   ...);
  return axis;
}

}  // namespace

std::string class_of(const std::type_info& type) {
  auto name = c10::demangle(type.name());
  if (const auto colon = name.rfind(':'); colon != std::string::npos) name.erase(0, colon + 1);
  if (name.ends_with("Impl")) name.resize(name.size() - 4);
  return name;
}

std::string reason_of_leaf(const nn::Module& module, int64_t dim) {
  if (is_elementwise(module)) return "element-wise";
  if (is_one_of<nn::Dropout2dImpl, nn::Dropout3dImpl, nn::FeatureAlphaDropoutImpl>(module)) {
    return "drops channels, each rank its own";
  }
  if (is_one_of<nn::LinearImpl, nn::BilinearImpl>(module)) {
    return dim == -1 ? fmt::format("{}: the last axis is the sharded one", kNotKnown)
                     : "mixes the last axis only";
  }
  // an axis counted from the other end may be the same
  if (const auto axis =
          axis_of<nn::SoftmaxImpl, nn::LogSoftmaxImpl, nn::SoftminImpl, nn::GLUImpl>(module);
      axis && *axis != dim && (*axis < 0) == (dim < 0)) {
    return fmt::format("mixes axis {} only", *axis);
  }
  if (is_one_of<nn::Softmax2dImpl>(module)) return "mixes channels only";
  if (is_one_of<nn::PixelShuffleImpl>(module)) {
    return "makes rows of channels, each position by itself";
  }
  if (is_one_of<nn::EmbeddingImpl>(module)) return "every position by itself";
  return kNotKnown;
}

bool mixes_by_itself(const nn::Module& module) {
  return is_derived_of<nn::MultiheadAttentionImpl, nn::TransformerImpl, nn::TransformerEncoderImpl,
                       nn::TransformerDecoderImpl, nn::TransformerEncoderLayerImpl,
                       nn::TransformerDecoderLayerImpl>(module);
}

bool is_container(const nn::Module& module) {
  return is_derived_of<nn::SequentialImpl, nn::ModuleListImpl, nn::ModuleDictImpl,
                       nn::ParameterListImpl, nn::ParameterDictImpl>(module);
}

}  // namespace halcyon::parallel::convert_detail
