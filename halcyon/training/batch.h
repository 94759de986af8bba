// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/training/loss.h"
#include "halcyon/training/task.h"

namespace halcyon::training {

// B windows of T frames with what a HealDA model takes and what it should answer.
struct Batch {
  at::Tensor x;              // (B, C, T, X) static and background input
  at::Tensor t;              // (B,)
  at::Tensor second_of_day;  // (B, T)
  at::Tensor day_of_year;    // (B, T)
  ObsContext observations;   // of the B*T*X coarse pixels
  at::Tensor target;         // as the forward function answers, (B, V, ...); anything where masked
  at::Tensor mask;           // bool, broadcast to target; undefined: everything counts
  at::Tensor weight;         // areas, broadcast to target; undefined: equal

  int64_t size() const { return target.size(0); }
};

// Makes training data; a pure function of the draw.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual Batch batch(const Draw& draw) = 0;
};

using Forward = std::function<at::Tensor(const Batch&)>;
using Validate = std::function<Scores()>;

// The usual task: loss(forward(source's batch), target).
class SupervisedTask : public Task {
 public:
  SupervisedTask(std::shared_ptr<torch::nn::Module> module, Forward forward,
                 std::shared_ptr<SampleSource> source, LossOptions loss, Validate validate = {});

  torch::nn::Module& module() override { return *module_; }
  Loss loss(const Draw& draw) override;
  Scores validate() override;

 private:
  std::shared_ptr<torch::nn::Module> module_;
  Forward forward_;
  std::shared_ptr<SampleSource> source_;
  LossOptions loss_;
  Validate validate_;
};

}  // namespace halcyon::training
