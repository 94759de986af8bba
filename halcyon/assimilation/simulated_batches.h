// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/assimilation/departure.h"
#include "halcyon/assimilation/network_sampler.h"
#include "halcyon/assimilation/regional_system.h"
#include "halcyon/assimilation/seasonal_ensemble.h"
#include "halcyon/training/task.h"

namespace halcyon::assimilation {

// Analyses to learn: observations and what an analysis should say, drawn afresh for every sample.
struct SimulatedBatch {
  std::vector<DepartureSet> observations;  // B
  at::Tensor target;                       // (B, X) float32 anomalies at the analysis time
  // (B, X) float32: area, for networks of stations mostly that of the focus, over the mean
  // climatological variance, so that the weighted squared error of a zero analysis is about 1
  at::Tensor weights;
  std::vector<bool> stations;  // (B): whether the network was drawn from the known stations
};

struct SimulatedBatchOptions {
  int64_t networks = 2, fields = 8;  // a batch has networks * fields samples
  double truth_share = 0;  // of networks whose target is the truth, not the posterior mean
};

class SimulatedBatches {
 public:
  SimulatedBatches(const RegionalSystem& system, SeasonalEnsemble ensemble,
                   NetworkSamplerOptions networks, const Box& focus);

  // A pure function of the draw; networks are worked on in parallel.
  SimulatedBatch draw(const training::Draw& draw, const SimulatedBatchOptions& options) const;
  // `count` fields as they were, evenly spaced over the ensemble's windows, with a network each.
  SimulatedBatch true_fields(uint64_t seed, int64_t count) const;

 private:
  struct Reports;
  Reports reports_of(const SimulatedNetwork& network, training::Random& random) const;
  void add(const Reports& reports, const at::Tensor& departures, int64_t time,
           DepartureSet& set) const;
  SimulatedBatch empty(int64_t size) const;

  const RegionalSystem& system_;
  SeasonalEnsemble ensemble_;
  NetworkSamplerOptions networks_;
  at::Tensor area_weights_, station_weights_;  // (X,) float32
};

}  // namespace halcyon::assimilation
