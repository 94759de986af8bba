// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "halcyon/parallel/data_parallel.h"
#include "halcyon/training/checkpoint.h"
#include "halcyon/training/task.h"

namespace halcyon::training {

// What the ranks of a data-parallel run tell one another. A step's micro-batches are spread over
// the ranks, each drawn as one process draws it, so that the samples of a run do not depend on the
// number of ranks, nor on a resume on another number. Rank 0 leads: it alone keeps the folder,
// writes logs and checkpoints, and validates.
class TrainingRanks {
 public:
  // Error on every rank where configurations or parameters differ between the ranks, or there are
  // more ranks than micro-batches. Parameters and buffers take rank 0's values.
  TrainingRanks(const parallel::Group& group, torch::nn::Module& module,
                const NamedTensors& parameters, const nlohmann::json& configuration,
                int64_t accumulate);

  bool leads() const { return group_.rank() == 0; }
  int64_t size() const { return group_.size(); }
  const parallel::Group& group() const { return group_; }

  // This rank's micro-batches [first, last) of a step.
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }

  struct Step {
    double loss = 0;  // mean over the step's micro-batches
    int64_t samples = 0;
    bool stop = false;  // some rank was asked to stop
  };
  void begin_step();
  // The gradient of the micro-batch that comes next stays on this rank, or is reduced.
  void set_last(bool is_last);
  // Before the last backward. failure: what this rank's part of the step threw, if anything; it is
  // thrown on every rank. loss: the sum over this rank's micro-batches.
  Step agree(int64_t step, double loss, int64_t samples, bool stop,
             const std::function<void()>& failure);

  // f on this rank; what it throws on one rank is thrown on all.
  void together(const std::function<void()>& f) const;
  // Rank 0's tensors and text, on every rank.
  void take_from_leader(const StateTensors& state, std::optional<nlohmann::json>& progress) const;

 private:
  parallel::Group group_;
  int64_t accumulate_, first_, last_;
  std::unique_ptr<parallel::DataParallel> data_parallel_;
};

}  // namespace halcyon::training
