// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/regional_system.h"

#include <ATen/ATen.h>

#include <set>

#include "halcyon/base/error.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/state/read_fields.h"

namespace halcyon::assimilation {

namespace {

std::vector<state::Interval> intervals(const config::Node& section, const char* key) {
  std::vector<state::Interval> list;
  for (const auto& item : section.sections(key)) {
    list.push_back({item.time("start"), item.time("end")});
    if (list.back().end <= list.back().start) item.fail("end", "expected a time after start");
  }
  return list;
}

state::DataSplit split_of(const config::Node& section) {
  const auto training = intervals(section, "training"),
             validation = intervals(section, "validation"),
             evaluation = intervals(section, "evaluation");
  try {
    return {training, validation, evaluation};
  } catch (const Error& e) {
    section.fail("training", e.what());
  }
}

state::Climatology climatology_of(const state::Fields& truth, const std::filesystem::path& file) {
  try {
    return state::Climatology::fit(truth, truth.times);
  } catch (const Error& e) {  // too few times: the file's fault
    throw Error(ErrorKind::input, fmt::format("{} ({})", e.what(), file.string()));
  }
}

// The pixels of a level that hold a point of the grid.
Region pixels_of(const LatLonGrid& grid, int level) {
  const auto [lon, lat] = grid.points();
  const auto pixels = healpix::ang2pix(level, lon, lat);
  const auto* first = pixels.const_data_ptr<int64_t>();
  const std::set<int64_t> unique(first, first + pixels.numel());
  return Region::of_pixels(level, std::vector<int64_t>(unique.begin(), unique.end()));
}

}  // namespace

RegionalSystem RegionalSystem::from_config(const config::Node& system) {
  const auto name = system.required<std::string>("name");
  const auto variable = system.required<std::string>("variable");
  const auto file = system.input_file("fields");
  const auto level = system.required<int>("token_level", config::between(0, 8));
  const auto fine = system.required<int>("pixel_level", config::between(level, 10));
  std::vector<int64_t> ages;
  for (const auto& age : system.required<std::vector<std::string>>("ages")) {
    try {
      ages.push_back(parse_duration(age));
    } catch (const Error& e) {
      system.fail("ages", e.what());
    }
    system.check(ages.back() >= 0 && (ages.size() == 1 || ages.back() > ages[ages.size() - 2]),
                 "ages", "expected ascending ages of 0 or more, got {}", age);
  }
  const auto split = split_of(system.section("split"));

  const auto truth = split.read(file, state::Purpose::training, {.variables = {variable}});
  const auto* grid = std::get_if<LatLonGrid>(&truth.grid);
  system.check(grid != nullptr, "fields", "expected fields on a latitude-longitude grid");
  const auto climatology = climatology_of(truth, file);
  const auto departures = climatology.anomaly(truth).select(1, 0);
  const auto spread = departures.square().mean(0).sqrt().to(at::kFloat);
  const auto tokens = pixels_of(*grid, level);
  const auto pixels = tokens.refined(fine - level);
  const auto [lon, lat] = grid->points();
  return {name,
          truth.variables[0],
          *grid,
          ages,
          split,
          file,
          climatology,
          spread,
          tokens,
          pixels,
          bilinear_to_points(pixels, lon, lat),
          bilinear(Grid(*grid), Grid(pixels))};
}

at::Tensor RegionalSystem::anomalies(state::Purpose purpose, std::vector<int64_t>& times) const {
  const auto truth = split.read(fields, purpose, {.variables = {variable.name}});
  times = truth.times;
  return climatology.anomaly(truth).select(1, 0).to(at::kFloat);
}

}  // namespace halcyon::assimilation
