// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/convert.h"

#include <fmt/format.h>

#include <typeindex>
#include <unordered_map>
#include <unordered_set>

#include "halcyon/base/error.h"
#include "halcyon/parallel/convert_reasons.h"

namespace halcyon::parallel {
namespace {

namespace nn = torch::nn;
using convert_detail::kPointwise;
using ModulePointer = std::shared_ptr<nn::Module>;

// A layer of torch's in its domain-parallel form, which still follows the default group.
using MakeForm = nn::AnyModule (*)(const ModulePointer&);

template <typename... Layers>
std::unordered_map<std::type_index, MakeForm> makers_of() {
  return {{typeid(Layers), [](const ModulePointer& layer) {
             return nn::AnyModule(
                 std::make_shared<DomainParallel<Layers>>(std::static_pointer_cast<Layers>(layer)));
           }}...};
}

MakeForm maker_of(const nn::Module& module) {
  static const auto makers =
      makers_of<nn::Conv1dImpl, nn::Conv2dImpl, nn::Conv3dImpl, nn::ConvTranspose1dImpl,
                nn::ConvTranspose2dImpl, nn::ConvTranspose3dImpl, nn::MaxPool1dImpl,
                nn::MaxPool2dImpl, nn::MaxPool3dImpl, nn::AvgPool1dImpl, nn::AvgPool2dImpl,
                nn::AvgPool3dImpl, nn::UpsampleImpl, nn::GroupNormImpl, nn::LayerNormImpl,
                nn::BatchNorm1dImpl, nn::BatchNorm2dImpl, nn::BatchNorm3dImpl>();
  const auto found = makers.find(typeid(module));
  return found == makers.end() ? nullptr : found->second;
}

class Walk {
 public:
  Walk(Group group, int64_t dim) : group_(std::move(group)), dim_(dim) {}

  // What shall stand for this module; empty where it stays. is_replaceable: whoever calls it does
  // not name its class; otherwise it stays all the same, and the report says so.
  nn::AnyModule visit(const ModulePointer& module, const std::string& name, bool is_replaceable);

  ConvertReport report;

 private:
  // Of a layer, the same wherever it stands: its form, if it has one, and what the report says.
  struct Outcome {
    nn::AnyModule form;
    std::string became, stayed;
  };
  Outcome outcome_of(const ModulePointer& module);
  Outcome outcome_of(DomainParallelLayer& layer, const nn::Module& module);
  void visit_children(nn::Module& parent, const std::string& name);

  Group group_;
  int64_t dim_;
  std::unordered_map<const nn::Module*, Outcome> layers_;
  std::unordered_set<const nn::Module*> parents_;
};

Walk::Outcome Walk::outcome_of(DomainParallelLayer& layer, const nn::Module& module) {
  Outcome outcome;
  outcome.stayed = layer.is_sharded() ? convert_detail::kAlready : layer.why_not(dim_);
  if (outcome.stayed.empty()) {
    layer.shard(group_, dim_);
    outcome.became = module.name();
  }
  return outcome;
}

Walk::Outcome Walk::outcome_of(const ModulePointer& module) {
  if (auto* layer = dynamic_cast<DomainParallelLayer*>(module.get())) {
    return outcome_of(*layer, *module);
  }
  const auto make = maker_of(*module);
  if (!make) return {{}, {}, convert_detail::reason_of_leaf(*module, dim_)};
  const auto form = make(module);
  auto outcome = outcome_of(dynamic_cast<DomainParallelLayer&>(*form.ptr()), *form.ptr());
  if (outcome.stayed.empty() || outcome.stayed == kPointwise) outcome.form = form;
  return outcome;
}

nn::AnyModule Walk::visit(const ModulePointer& module, const std::string& name,
                          bool is_replaceable) {
  if (convert_detail::mixes_by_itself(*module)) {
    report.kept[name] = convert_detail::kNotKnown;
    return {};
  }
  if (convert_detail::is_container(*module) || !module->children().empty()) {
    if (parents_.insert(module.get()).second) visit_children(*module, name);
    return {};
  }
  if (!layers_.contains(module.get())) layers_[module.get()] = outcome_of(module);
  const auto& outcome = layers_[module.get()];
  if (!outcome.stayed.empty()) {
    report.kept[name] = outcome.stayed;
  } else if (is_replaceable || outcome.form.is_empty()) {
    report.converted[name] = outcome.became;
  } else {
    report.kept[name] = fmt::format(
        "mixes positions, and its caller names its class: it sees this rank's part only (make it a "
        "halcyon::parallel::{})",
        outcome.became);
  }
  return outcome.form;
}

void Walk::visit_children(nn::Module& parent, const std::string& name) {
  auto* sequential = dynamic_cast<nn::SequentialImpl*>(&parent);
  size_t next = 0;  // a Sequential registers its elements in their order
  for (const auto& child : parent.named_children()) {
    if (!child.value()) continue;
    const auto full = name.empty() ? child.key() : name + '.' + child.key();
    const bool is_element =
        sequential && next < sequential->size() && sequential->ptr(next) == child.value();
    auto form = visit(child.value(), full, is_element);
    if (is_element && !form.is_empty()) {
      parent.replace_module(child.key(), form.ptr());
      sequential->begin()[static_cast<std::ptrdiff_t>(next)] = std::move(form);
    }
    next += is_element ? 1 : 0;
  }
}

void check(bool is_there) {
  HALCYON_CHECK(is_there, "convert", "expected a module of torch::nn, got an empty holder");
}

}  // namespace

std::pair<nn::Sequential, ConvertReport> convert(const nn::Sequential& model, const Group& group,
                                                 int64_t dim) {
  check(!model.is_empty());
  Walk walk(group, dim);
  walk.visit(model.ptr(), "", true);
  return {model, std::move(walk.report)};
}

std::pair<nn::AnyModule, ConvertReport> convert(const nn::AnyModule& model, const Group& group,
                                                int64_t dim) {
  check(!model.is_empty());
  Walk walk(group, dim);
  auto form = walk.visit(model.ptr(), "", true);
  if (form.is_empty()) form = model;
  return {std::move(form), std::move(walk.report)};
}

std::pair<ModulePointer, ConvertReport> convert_detail::convert_pointer(const ModulePointer& model,
                                                                        const Group& group,
                                                                        int64_t dim) {
  check(model != nullptr);
  Walk walk(group, dim);
  const auto form = walk.visit(model, "", true);
  return {form.is_empty() ? model : form.ptr(), std::move(walk.report)};
}

}  // namespace halcyon::parallel
