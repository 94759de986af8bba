// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/sharded_optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/broadcast.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/gradient_bucket.h"

namespace halcyon::training {
namespace {

using parallel::Agreement;
using parallel::Group;

constexpr const char* kOperation = "ShardedAdamW";

std::vector<at::Tensor> tensors_of(const NamedTensors& named) {
  std::vector<at::Tensor> out;
  for (const auto& [name, tensor] : named) out.push_back(tensor);
  return out;
}

}  // namespace

std::vector<int64_t> spread_by_size(const std::vector<int64_t>& sizes, int64_t ranks) {
  std::vector<size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  std::vector<int64_t> owners(sizes.size()), held(ranks, 0);
  for (const auto i : order) {
    const auto least = std::min_element(held.begin(), held.end());
    owners[i] = least - held.begin();
    *least += sizes[i];
  }
  return owners;
}

ShardedAdamW::ShardedAdamW(torch::nn::Module& module, const AdamWOptions& options,
                           const Group& group)
    : group_(group) {
  Agreement agreement(group_, kOperation);
  agreement.prepare([&] {
    parameters_ = trainable(module);
    std::string names;
    for (const auto& [name, tensor] : parameters_) names += name + '\n';
    parallel::agree_on_tensors(agreement, "parameters", tensors_of(parameters_));
    agreement.same("names of the parameters", names);
    agreement.same("beta1", options.beta1);
    agreement.same("beta2", options.beta2);
    agreement.same("epsilon", options.epsilon);
    agreement.same("weight_decay", options.weight_decay);
    agreement.same("no_decay", fmt::format("{}", fmt::join(options.no_decay, "\n")));
    HALCYON_CHECK(!parameters_.empty(), kOperation,
                  "expected a module with parameters to train, got none");
    std::vector<int64_t> sizes;
    for (const auto& [name, tensor] : parameters_) sizes.push_back(tensor.numel());
    owners_ = spread_by_size(sizes, group_.size());
    NamedTensors share;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (owners_[i] == group_.rank()) share.push_back(parameters_[i]);
    }
    if (!share.empty()) mine_.emplace(share, options);
  });
  agreement.post();
  agreement.finish();
}

void ShardedAdamW::step(int64_t step, double learning_rate) {
  Agreement agreement(group_, "ShardedAdamW step");
  agreement.prepare([&] {
    agreement.same("step", step);
    agreement.same("learning_rate", learning_rate);
  });
  agreement.post();
  agreement.finish();
  if (mine_) mine_->step(step, learning_rate);
  parallel::take_from_owners(tensors_of(parameters_), owners_, group_, "ShardedAdamW step",
                             agreement.tag());
}

void ShardedAdamW::zero_grad() {
  for (auto& [name, p] : parameters_) p.mutable_grad().reset();
}

double ShardedAdamW::clip_gradients(double max_norm) {
  return training::clip_gradients(parameters_, max_norm);
}

std::map<std::string, at::Tensor> ShardedAdamW::restored_state() {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, p] : parameters_) {
    for (const auto* moment : {"m.", "v."}) all[moment + name] = at::zeros_like(p.detach());
  }
  return all;
}

std::map<std::string, at::Tensor> ShardedAdamW::saved_state() const {
  Agreement agreement(group_, "ShardedAdamW state");
  agreement.prepare([] {});
  agreement.post();
  agreement.finish();
  const c10::NoGradGuard data_only;
  std::map<std::string, at::Tensor> mine, all;
  if (mine_) mine = mine_->state();
  parallel::Exchange exchange(group_, "ShardedAdamW state", agreement.tag());
  std::vector<std::pair<at::Tensor, at::Tensor>> arriving;  // to be copied, and where
  for (size_t i = 0; i < parameters_.size(); ++i) {
    for (const auto* moment : {"m.", "v."}) {
      const auto name = moment + parameters_[i].first;
      const auto& p = parameters_[i].second;
      if (group_.rank() == 0) {
        auto& into = all[name] = at::empty_like(p.detach());
        if (owners_[i] == 0) {
          into.copy_(mine.at(name));
        } else {
          arriving.emplace_back(at::empty(p.sizes(), p.options().requires_grad(false)), into);
          exchange.receive(owners_[i], arriving.back().first);
        }
      } else if (owners_[i] == group_.rank()) {
        exchange.send(0, mine.at(name).contiguous());
      }
    }
  }
  exchange.post();
  exchange.wait();
  for (const auto& [from, into] : arriving) into.copy_(from);
  return all;
}

void ShardedAdamW::take_restored(const std::map<std::string, at::Tensor>& all) {
  Agreement agreement(group_, "ShardedAdamW state");
  agreement.prepare([&] {
    for (const auto& [name, p] : parameters_) {
      for (const auto* moment : {"m.", "v."}) {
        const auto found = all.find(moment + name);
        HALCYON_CHECK(found != all.end() && found->second.sizes() == p.sizes(),
                      "ShardedAdamW state", "expected {}{} of the parameter's shape", moment, name);
      }
    }
  });
  agreement.post();
  agreement.finish();
  if (!mine_) return;
  const c10::NoGradGuard data_only;
  for (auto& [name, into] : mine_->state()) into.copy_(all.at(name));
}

}  // namespace halcyon::training
