// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/packing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/obs/features.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

at::Tensor tensor_of(const std::vector<int64_t>& values) {
  auto out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

// Place in the region of each row; -1 outside, -2 where there is no position.
std::vector<int64_t> places(const Table& table, const Region& region, healpix::Rule rule) {
  const auto &lat = table["lat"], &lon = table["lon"];
  const auto good = lat.abs().le(90).logical_and(lon.abs().le(360));
  const auto dtype = rule == healpix::Rule::healda ? at::kFloat : at::kDouble;
  const auto pixels =
      healpix::ang2pix(region.level(), lon.where(good, 0.0).to(dtype),
                       lat.where(good, 0.0).to(dtype), healpix::Order::pad_xy, rule);
  const auto index = region.index_of(pixels).where(good, -2).contiguous();
  const int64_t* first = index.const_data_ptr<int64_t>();
  return {first, first + index.numel()};
}

void check_frames(const Frames& frames) {
  HALCYON_CHECK(!frames.times.empty(), "assign_pixels", "expected a frame, got none");
  HALCYON_CHECK(frames.begin < frames.end, "assign_pixels",
                "expected a window that begins before it ends, got {} to {} s", frames.begin,
                frames.end);
  constexpr int64_t most = int64_t{1} << 32;
  const auto within = [](int64_t x) { return x > -most && x < most; };
  HALCYON_CHECK(std::all_of(frames.times.begin(), frames.times.end(), within) &&
                    within(frames.begin) && within(frames.end),
                "assign_pixels", "expected times of the years 1834 to 2106");
}

}  // namespace

Table normalised(const Table& table, const Normalisation& statistics) {
  check_observations(table, "normalised");
  std::map<int32_t, std::array<double, 2>> by_number;
  for (const auto& [name, pair] : statistics) {
    HALCYON_CHECK(std::isfinite(pair[0]) && std::isfinite(pair[1]) && pair[1] > 0, "normalised",
                  "expected a mean and a positive sd of {}, got {} and {}", name, pair[0], pair[1]);
    by_number[variable_number(name)] = pair;
  }
  const auto value = table.values<float>("value");
  const auto number = table.values<int32_t>("variable");
  auto scaled = at::empty({table.rows()}, at::kFloat);
  float* out = scaled.mutable_data_ptr<float>();
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto found = by_number.find(number[i]);
    HALCYON_CHECK(found != by_number.end(), "normalised", "expected statistics of {}, got none",
                  variable(number[i]).name);
    out[i] = static_cast<float>((value[i] - found->second[0]) / found->second[1]);
  }
  Table result = table;
  result.set("normalised", scaled);
  return result;
}

Assignment assign_pixels(const Table& table, const Region& region, const Frames& frames,
                         int64_t batch, healpix::Rule rule) {
  check_observations(table, "assign_pixels");
  check_frames(frames);
  HALCYON_CHECK(batch >= 0, "assign_pixels", "expected a place in the batch, got {}", batch);
  const auto place = places(table, region, rule);
  const auto time = table.values<int64_t>("time_ns");
  const auto n_frames = static_cast<int64_t>(frames.times.size());
  std::vector<int64_t> rows, of_frame, flat;
  auto codes = at::empty({table.rows()}, at::kInt);
  int32_t* code = codes.mutable_data_ptr<int32_t>();
  const auto in_window = [&](std::size_t i, int64_t t) {
    return time[i] > (t + frames.begin) * kNsPerSecond &&
           time[i] <= (t + frames.end) * kNsPerSecond;
  };
  for (std::size_t i = 0; i < time.size(); ++i) {
    const bool some = std::any_of(frames.times.begin(), frames.times.end(),
                                  [&](int64_t t) { return in_window(i, t); });
    code[i] = static_cast<int32_t>(place[i] == -2              ? Reason::position
                                   : time[i] == kMissingTimeNs ? Reason::time
                                   : !some                     ? Reason::outside_window
                                   : place[i] < 0              ? Reason::outside_region
                                                               : Reason::kept);
  }
  for (int64_t f = 0; f < n_frames; ++f) {
    const auto t = frames.times[static_cast<std::size_t>(f)];
    for (std::size_t i = 0; i < time.size(); ++i) {
      if (code[i] != 0 || !in_window(i, t)) continue;
      rows.push_back(static_cast<int64_t>(i));
      of_frame.push_back(f);
      flat.push_back((batch * n_frames + f) * region.size() + place[i]);
    }
  }
  return {tensor_of(rows), tensor_of(of_frame), tensor_of(flat), codes};
}

Packed pack(const std::vector<Sample>& samples, const Region& region, const PackOptions& options) {
  HALCYON_CHECK(!samples.empty(), "pack", "expected a sample, got none");
  const auto n_frames = samples[0].frames.times.size();
  const auto& layout = feature_layout(options.layout);
  const FeatureContext context{region.level()};
  Packed out;
  std::vector<at::Tensor> value, features, sensor, channel, platform, flat;
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const auto& [table, frames] = samples[b];
    HALCYON_CHECK(frames.times.size() == n_frames, "pack",
                  "expected {} frames in every sample, got {}", n_frames, frames.times.size());
    const auto found = assign_pixels(table, region, frames, static_cast<int64_t>(b), options.rule);
    const auto rows = table.select(found.row);
    HALCYON_CHECK(rows["normalised"].scalar_type() == at::kFloat, "pack",
                  "expected float32 in column normalised");
    HALCYON_CHECK(rows["normalised"].isfinite().all().item<bool>(), "pack",
                  "expected finite values: apply quality control first");
    const auto target = tensor_of(frames.times).index_select(0, found.frame);
    features.push_back(layout.make(rows, target, context));
    HALCYON_ASSERT(features.back().dim() == 2 && features.back().size(0) == rows.rows() &&
                   features.back().size(1) == layout.width);
    HALCYON_CHECK(
        features.back().isfinite().all().item<bool>(), "pack",
        "expected finite features of layout {}: a row lacks its height, pressure or angles",
        layout.name);
    value.push_back(rows["normalised"]);
    channel.push_back(rows["variable"].to(at::kLong) + options.channel_offset);
    platform.push_back(rows["platform"].to(at::kLong));
    sensor.push_back(rows.has("sensor") ? rows["sensor"].to(at::kLong)
                                        : at::full({rows.rows()}, options.sensor, at::kLong));
    flat.push_back(found.flat_idx);
    out.codes.push_back(found.codes);
  }
  const auto total = static_cast<int64_t>(samples.size() * n_frames) * region.size();
  out.context =
      prepare_obs_context(at::cat(value), at::cat(features), at::cat(sensor), at::cat(channel),
                          at::cat(platform), at::cat(flat), total, options.build_group_map);
  return out;
}

}  // namespace halcyon::obs
