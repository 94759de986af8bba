// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "halcyon/training/checkpoint.h"
#include "halcyon/training/ema.h"
#include "halcyon/training/folder_lock.h"
#include "halcyon/training/task.h"
#include "halcyon/training/train_config.h"
#include "halcyon/training/training_ranks.h"

namespace halcyon::training {

struct TrainOptions {
  // Asked between steps: true ends the run after a checkpoint, to be resumed (SIGTERM).
  std::function<bool()> stop;
  // Called with the averaged weights in the module whenever validation.best improves.
  std::function<void(int64_t step, const Scores&)> on_best;
  // Goes into every checkpoint beside the trainer's own record: model arguments, data, versions.
  nlohmann::json provenance;
  bool show_progress = true;
  // The ranks of the run: each works on some micro-batches of every step.
  parallel::Group group = parallel::Group::alone();
};

struct TrainOutcome {
  int64_t step = 0;       // done so far
  bool finished = false;  // false: stopped
  double loss = 0;        // of the last step
  Scores scores;          // of the last validation
};

// Trains task.module() in place, from the newest checkpoint on when there is one. Writes into
// config.output:
//   step-*.safetensors       checkpoints
//   training.csv             step, learning_rate, loss, gradient_norm, samples, samples_per_second
//   validation.csv           step and the task's scores
//   events.out.tfevents.*    the same for TensorBoard
// A process killed at any moment and started again gives the losses and weights of one that never
// stopped, bit for bit, on the same device and number of threads: all that is random is a function
// of (seed, step, micro-batch). At the end the module holds the last step's weights; see average().
//
// Over several ranks every rank makes and runs a trainer of the same task and configuration: the
// samples of a step are those of one process, the gradients the same up to the order of additions,
// and any number of ranks goes on from the checkpoints of any other. Rank 0 writes the files and
// validates; what one rank throws, or a stop that one is asked for, is that of all. Where a peer is
// lost, each that waits for it throws Error(communication), and the last checkpoint stands.
//
// Throws Error(numerics) that names the step and the first tensor that is not finite, before the
// weights are touched; the state after the last good step is then in a checkpoint. Throws
// Error(configuration) when another process trains in the folder.
class Trainer {
 public:
  Trainer(Task& task, TrainConfig config, TrainOptions options = {});
  // The scores of the outcome are known to rank 0.
  TrainOutcome run();
  MovingAverage& average() { return average_; }

 private:
  struct Logs;
  struct StepRecord;

  StateTensors state(const StateTensors& moments) const;
  void resume();
  std::optional<nlohmann::json> restore_state(const StateTensors& all);
  StepRecord train_step();
  at::Tensor loss_of(int64_t micro, StepRecord& record);
  void keep_buffers();
  void restore_buffers();
  [[noreturn]] void not_finite(const std::string& culprit);
  void validate(Logs& logs);
  void save(Logs* logs);  // on every rank; logs: rank 0's

  Task& task_;
  TrainConfig config_;
  TrainOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  TrainingRanks ranks_;
  std::optional<FolderLock> lock_;  // rank 0's
  std::optional<Checkpoints> checkpoints_;
  MovingAverage average_;
  std::vector<std::pair<at::Tensor, at::Tensor>> buffers_;  // and what they held before the step
  // What a checkpoint's `progress` holds.
  int64_t step_ = 0, samples_ = 0, best_step_ = 0, saved_step_ = -1;
  std::optional<double> best_;
  Scores scores_;
};

}  // namespace halcyon::training
