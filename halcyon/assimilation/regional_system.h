// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>

#include "halcyon/assimilation/departure.h"
#include "halcyon/assimilation/surface_encoder.h"
#include "halcyon/base/config.h"
#include "halcyon/model/healda.h"
#include "halcyon/sphere/regrid.h"
#include "halcyon/state/climatology.h"
#include "halcyon/state/split.h"

namespace halcyon::assimilation {

// What a regional analysis of one surface variable is made of, apart from the network's weights:
// the grid, the climatology that observations and analyses depart from, the tokens' region, and the
// frames of observations that one analysis sees. Training, analysis and evaluation read it from the
// same file, so that they cannot disagree.
struct RegionalSystem {
  std::string name;
  state::Variable variable;
  LatLonGrid grid;                 // of the truth and of the products
  std::vector<int64_t> ages;       // of the observations, seconds before the analysis, ascending
  state::DataSplit split;          // which times may train, tune and evaluate
  std::filesystem::path fields;    // the gridded truth
  state::Climatology climatology;  // fitted on the split's training times only
  at::Tensor spread;               // (X,) float32: standard deviation of the anomalies on the grid
  Region tokens, pixels;           // the model's coarse and fine HEALPix pixels
  SparseMatrix to_grid;            // pixels -> grid
  SparseMatrix to_pixels;          // grid -> pixels

  // Reads the file of a system (docs/north_america.md has every key) and fits climatology
  // and spread on the training times.
  static RegionalSystem from_config(const config::Node& system);

  // Anomalies (T, X) float32 of the fields at times that the purpose may see.
  at::Tensor anomalies(state::Purpose purpose, std::vector<int64_t>& times) const;
};

// The network with its system: departures in, anomalies on the grid out.
class RegionalModel {
 public:
  static constexpr int64_t kChunk = 32;  // samples of a piece of analyse()

  RegionalModel(const RegionalSystem& system, HealDA model);

  // (B, X) float32 anomalies on the lat-lon grid; differentiable in the model's parameters.
  at::Tensor forward(const std::vector<DepartureSet>& batch);
  // (B, X_fine) anomalies on the HEALPix pixels.
  at::Tensor forward_pixels(const std::vector<DepartureSet>& batch);
  // The same without autograd and in evaluation mode, in pieces that bound memory.
  at::Tensor analyse(const std::vector<DepartureSet>& batch, int64_t chunk = kChunk);
  at::Tensor analyse_pixels(const std::vector<DepartureSet>& batch, int64_t chunk = kChunk);

  HealDA& model() { return model_; }
  const SurfaceEncoder& encoder() const { return encoder_; }

 private:
  const RegionalSystem& system_;
  HealDA model_;
  SurfaceEncoder encoder_;
  at::Tensor statics_;       // (1, 4, 1, X_fine)
  at::Tensor pixel_spread_;  // (X_fine,)
};

// The network's architecture for a system, from the section "model" of a run: its sizes; what the
// system fixes (region, levels, channels, metadata) is filled in.
HealDAConfig regional_config(const RegionalSystem& system, const config::Node& model);

}  // namespace halcyon::assimilation
