// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "halcyon/obs/table.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/sphere/region.h"

// From tables to what the model reads.
namespace halcyon::obs {

// Mean and standard deviation of each variable's values, in the units of variables.h.
using Normalisation = std::map<std::string, std::array<double, 2>>;

// Sets the column normalised to (value - mean) / sd. Error(argument) when a variable of the table
// has no statistics or an sd that is not positive: they are never guessed.
Table normalised(const Table& table, const Normalisation& statistics);

// The times that a model call analyses, seconds since 1970, and the observations that belong to
// each: time + begin < observation <= time + end, in seconds.
struct Frames {
  std::vector<int64_t> times;
  int64_t begin = -3 * 3600, end = 3 * 3600;
};

struct Assignment {
  // One entry for each pair of a row and a frame whose window it is in; ascending frame, then row.
  at::Tensor row, frame, flat_idx;  // int64 (M,); flat_idx = (batch * T + frame) * X + pixel
  at::Tensor codes;  // int32 (rows,): kept, position, time, outside_window or outside_region
};

// The pixel of each observation, its place in the region being the model's pixel number. The rule
// healda is for models that were trained behind the HealDA data pipe, which had float32 places.
Assignment assign_pixels(const Table& table, const Region& region, const Frames& frames,
                         int64_t batch = 0, healpix::Rule rule = healpix::Rule::standard);

// One element of a batch: observations after quality control, with the column normalised.
struct Sample {
  Table table;
  Frames frames;
};

struct Packed {
  ObsContext context;
  std::vector<at::Tensor> codes;  // by sample, as in Assignment
};

// The observations of a batch for a model with pixels of this region and the same number of frames
// T in every sample: values from the column normalised, features of the layout named
// (features.h), channel = variable + channel_offset, platform = platform, obs_type = sensor.
struct PackOptions {
  std::string layout = "30";
  int64_t sensor = 0;          // of tables without the column
  int64_t channel_offset = 0;  // added to the variable's number
  bool build_group_map = true;
  healpix::Rule rule = healpix::Rule::standard;  // which pixel holds a place (assign_pixels)
};
Packed pack(const std::vector<Sample>& samples, const Region& region,
            const PackOptions& options = {});

}  // namespace halcyon::obs
