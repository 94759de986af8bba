// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/sequential.h>

#include <concepts>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "halcyon/parallel/convert_layers.h"
#include "halcyon/parallel/group.h"

// Models of torch::nn for inputs whose axis dim is cut over the ranks of a group.
namespace halcyon::parallel {

// What convert did: module names, as named_modules() has them (the root is ""), with the class that
// each became or why it stayed. Containers are in neither.
struct ConvertReport {
  std::map<std::string, std::string> converted;
  std::map<std::string, std::string> kept;
};

// The model with its convolutions, poolings, Upsample and norms in their domain-parallel forms
// (convert_layers.h). In place, as Module::to: containers and the modules of your own stay the same
// objects, and parameters and buffers the same tensors under the same names; only where the root
// itself is such a layer is another returned. Not collective. What report.kept names as mixing
// positions must be looked at: it sees one rank's rows only.
//
// - A layer of torch's is replaced where a torch::nn::Sequential, of any depth or class derived of
//   it, or an AnyModule or pointer as the root calls it. As a member of a class of your own, or in
//   a ModuleList or ModuleDict, it is called by its class, which cannot change: it is in
//   report.kept, and the cure is to make it one of convert_layers.h.
// - A layer of convert_layers.h that follows no group yet follows this one, wherever it stands.
// - 1x1 convolutions, element-wise modules and the like work on any part and are in report.kept
//   with such a reason. (A 1x1 convolution in a Sequential becomes a DomainParallel one all the
//   same, as torch's refuses the input of a rank without rows.)
// - A class derived of one of torch's layers counts as unknown: its forward may be another.
//
// dim: the sharded axis of every layer's input. Error(argument) for an empty holder.
std::pair<torch::nn::Sequential, ConvertReport> convert(const torch::nn::Sequential& model,
                                                        const Group& group = {}, int64_t dim = -2);
std::pair<torch::nn::AnyModule, ConvertReport> convert(const torch::nn::AnyModule& model,
                                                       const Group& group = {}, int64_t dim = -2);

namespace convert_detail {
std::pair<std::shared_ptr<torch::nn::Module>, ConvertReport> convert_pointer(
    const std::shared_ptr<torch::nn::Module>& model, const Group& group, int64_t dim);
}  // namespace convert_detail

// Of any other model: a class of your own, a ModuleList. A root that is a layer of torch's comes
// back as a DomainParallel.
template <std::derived_from<torch::nn::Module> Model>
std::pair<std::shared_ptr<torch::nn::Module>, ConvertReport> convert(
    const std::shared_ptr<Model>& model, const Group& group = {}, int64_t dim = -2) {
  return convert_detail::convert_pointer(model, group, dim);
}
template <typename Model>
std::pair<std::shared_ptr<torch::nn::Module>, ConvertReport> convert(
    const torch::nn::ModuleHolder<Model>& model, const Group& group = {}, int64_t dim = -2) {
  return convert_detail::convert_pointer(model.is_empty() ? nullptr : model.ptr(), group, dim);
}

}  // namespace halcyon::parallel
