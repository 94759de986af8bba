// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "halcyon/assimilation/simulated_batches.h"
#include "halcyon/training/loss.h"

namespace halcyon::assimilation {

// Trains the network of a regional system on simulated observations of the training times, and
// scores it on the validation times with fixed networks.
class RegionalTask : public training::Task {
 public:
  // run: reads the sections "simulation" (fields, networks, focus) and "batch" of a training run,
  // and its key "validation_samples".
  RegionalTask(const RegionalSystem& system, HealDA model, const config::Node& run,
               training::LossOptions loss);

  torch::nn::Module& module() override { return *model_.model(); }
  training::Loss loss(const training::Draw& draw) override;
  // "rmse_stations", "rmse_other", K, by kind of network (weighted as in the loss), and their mean
  // "rmse"; nothing when no times are kept for validation.
  training::Scores validate() override;

 private:
  RegionalModel model_;
  std::unique_ptr<SimulatedBatches> batches_;
  SimulatedBatchOptions batch_;
  training::LossOptions loss_;
  double unit_;  // root mean square of the anomalies, K
  SimulatedBatch validation_;
};

}  // namespace halcyon::assimilation
