// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/nn/module.h>

namespace halcyon {

// The formula of CalendarEmbedding: day_of_year and second_of_day (B, T), lon (X,) degrees and
// frequencies (K,), all on one device -> (B, T, X, 4 K), contiguous. sign is that of the longitude
// in the local time: 1, or -1 for the legacy bug.
at::Tensor calendar_features(const at::Tensor& day_of_year, const at::Tensor& second_of_day,
                             const at::Tensor& lon, const at::Tensor& frequencies, double sign = 1);

// Where a frame stands in the day and in the year, at every pixel: cosines and sines of the local
// time of day and of the day of the year, frequencies 2 pi k with k = 1 .. embed_channels. No
// parameters, nothing saved.
class CalendarEmbeddingImpl : public torch::nn::Module {
 public:
  // lon (X,) floating, degrees. include_legacy_bug subtracts the longitude where it must be added.
  CalendarEmbeddingImpl(const at::Tensor& lon, int64_t embed_channels,
                        bool include_legacy_bug = false);

  // day_of_year (fractional, 0-based) and second_of_day (UTC), both (B, T) and of one shape ->
  // (B, 4 * embed_channels, T, X): cos and sin of the day, cos and sin of the year. Local time is
  // rounded down to whole seconds. Computed and returned in single precision, or in double where an
  // input is double.
  at::Tensor forward(const at::Tensor& day_of_year, const at::Tensor& second_of_day);
  // The same as (B, T, X, 4 * embed_channels), contiguous.
  at::Tensor channels_last(const at::Tensor& day_of_year, const at::Tensor& second_of_day);

  const at::Tensor& lon() const { return lon_; }
  const at::Tensor& frequencies() const { return frequencies_; }

 private:
  at::Tensor lon_, frequencies_;  // follow the inputs to their device
  double sign_;
};
TORCH_MODULE(CalendarEmbedding);

}  // namespace halcyon
