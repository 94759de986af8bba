// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "halcyon/base/config.h"
#include "halcyon/training/loss.h"
#include "halcyon/training/optimizer.h"
#include "halcyon/training/schedule.h"

namespace halcyon::training {

enum class Precision { fp32, bf16 };

// The `training` section of a run. In YAML, with the defaults:
//
//   training:
//     output: runs/demo          # folder for checkpoints and logs, made if need be (no default)
//     steps: 20000               # optimizer steps in all (no default)
//     seed: 0                    # every random number of the run is a function of it
//     accumulate: 1              # micro-batches a step; the step's loss is their mean. The ranks
//                                # of a run (torchrun, mpirun, srun) share them out
//     precision: fp32            # or bf16: autocast, with fp32 weights and optimizer
//     resume: auto               # the newest checkpoint in output, if any; never: none may be
//                                # there; or a checkpoint's path
//     optimizer:                 # AdamW
//       learning_rate: 1e-3      # the schedule's peak
//       betas: [0.9, 0.99]
//       epsilon: 1e-8
//       weight_decay: 0.01       # on tensors of two dimensions or more
//       no_decay: []             # shell patterns of parameters that are excepted
//       sharded: false           # moments spread over the ranks of the run (ZeRO-1)
//     schedule: {warmup: 0, final_fraction: 0}      # linear warm-up, then half a cosine
//     gradient_clip: 1.0         # largest global norm; 0: never clipped
//     loss: {kind: huber, delta: 1, channel_weights: []}     # or kind: mse
//     ema: {decay: 0.999}        # averaged weights, which validation and products use; 0: none
//     validation: {every: 0, best: ""}    # steps, 0: only at the end; the score whose least value
//                                         # marks the best weights
//     checkpoints: {every: 1000, keep: 3}
//     log: {tensorboard: true}
struct TrainConfig {
  std::filesystem::path output;
  int64_t steps = 1;
  int64_t seed = 0;
  int64_t accumulate = 1;
  Precision precision = Precision::fp32;
  std::string resume = "auto";
  AdamWOptions optimizer;
  bool sharded_optimizer = false;
  Schedule schedule;  // peak and steps are filled in
  double gradient_clip = 1;
  LossOptions loss;
  double ema_decay = 0.999;
  int64_t validate_every = 0;
  std::string best_score;
  int64_t checkpoint_every = 1000;
  int64_t keep_checkpoints = 3;
  bool tensorboard = true;

  // Throws Error(configuration) with the line of what is wrong.
  static TrainConfig from(const config::Node& training);
  // What the numbers of a run depend on; a resumed run warns where it differs.
  nlohmann::json identity() const;
};

}  // namespace halcyon::training
