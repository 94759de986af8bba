// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"
#include "halcyon/training/optimizer.h"

namespace halcyon::training {

// AdamW whose moments are spread over the ranks of a group (ZeRO stage 1, Rajbhandari et
// al. 2020): each rank keeps those of its share of the parameters, steps them and gives them to the
// others. Every rank has all parameters and all gradients, reduced already (reduce_gradients.h,
// data_parallel.h). The result is bitwise that of AdamW on one rank. All but zero_grad
// and clip_gradients are collective.
class ShardedAdamW : public Optimizer {
 public:
  // Error(argument) on every rank where the parameters or the options differ.
  ShardedAdamW(torch::nn::Module& module, const AdamWOptions& options,
               const parallel::Group& group = {});

  void step(int64_t step, double learning_rate) override;
  void zero_grad() override;
  double clip_gradients(double max_norm) override;

  const NamedTensors& parameters() const override { return parameters_; }
  // The rank that keeps the i'th parameter's moments.
  int64_t owner(size_t i) const { return owners_.at(i); }

  // As AdamW::state(), under the same names, whatever the number of ranks: on rank 0 a
  // copy of all moments, for a checkpoint; elsewhere nothing.
  std::map<std::string, at::Tensor> saved_state() const override;
  // Tensors of the names and shapes of all moments, for restore(); then each rank takes
  // its share of what was restored. The number of ranks may be another than when it was saved.
  std::map<std::string, at::Tensor> restored_state() override;
  void take_restored(const std::map<std::string, at::Tensor>& all) override;

 private:
  parallel::Group group_;
  NamedTensors parameters_;
  std::vector<int64_t> owners_;
  std::optional<AdamW> mine_;  // none where there are more ranks than parameters
};

// Which of so many ranks keeps each of tensors of these sizes: the largest first, each to the rank
// that has least.
std::vector<int64_t> spread_by_size(const std::vector<int64_t>& sizes, int64_t ranks);

}  // namespace halcyon::training
