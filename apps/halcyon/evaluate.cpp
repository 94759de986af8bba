// SPDX-License-Identifier: Apache-2.0
// halcyon evaluate RUN.yaml: the network beside climatology and optimal interpolation, by the same
// protocols.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>

#include "apps/halcyon/commands.h"
#include "halcyon/assimilation/regional_analyser.h"
#include "halcyon/base/config.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/log.h"
#include "halcyon/base/time.h"
#include "halcyon/model/checkpoint.h"
#include "halcyon/ops/tuning/config.h"
#include "halcyon/state/area.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/verify/evaluation.h"

namespace halcyon::cli {

namespace {

struct Arguments {
  std::filesystem::path run;
  std::vector<std::string> overrides;
  bool dry_run = false;
};

Box box_of(const config::Node& section) {
  // west > east is a box across the date line
  const Box box{section.required<double>("west", config::between(-360, 360)),
                section.required<double>("east", config::between(-360, 360)),
                section.required<double>("south", config::between(-90, 90)),
                section.required<double>("north", config::between(-90, 90))};
  section.check(box.west != box.east, "east", "expected another longitude than west");
  section.check(box.south < box.north, "north", "expected more than south");
  return box;
}

// Everything that the configuration names is read before the first score is computed.
struct Evaluation {
  std::shared_ptr<const assimilation::RegionalSystem> system;
  HealDA model{nullptr};
  verify::StationSeries stations;
  state::Interval real_period;
  Box focus, sites;
  verify::EvaluationOptions options;
  tuning::Config tuning;
  std::optional<std::filesystem::path> output;
};

Evaluation read(const config::Node& run) {
  Evaluation e;
  const auto file = config::load(run.input_file("system"));
  const auto checkpoint = run.input_file("checkpoint");
  const auto stations = run.section("stations");
  const auto sites = stations.input_file("sites"), reports = stations.input_file("reports");
  const auto period = run.section("real_period");
  e.real_period = {period.time("start"), period.time("end")};
  period.check(e.real_period.start < e.real_period.end, "end", "expected a time after start");
  e.focus = box_of(run.section("focus"));
  const auto random = run.section("random_sites");
  e.sites = box_of(random.section("box"));
  e.options.random_sites = random.optional<int64_t>("count", 150, config::at_least(1));
  e.options.noise_sd = run.optional<double>("noise_sd", 1.0, config::positive());
  e.options.seed = static_cast<uint64_t>(run.optional<int64_t>("seed", 0, config::at_least(0)));
  e.tuning = tuning::Config::from(run);
  e.output = run.maybe<std::filesystem::path>("output");
  run.finish();
  e.system = std::make_shared<assimilation::RegionalSystem>(
      assimilation::RegionalSystem::from_config(file));
  file.finish();
  e.model = load_checkpoint(checkpoint);
  e.stations = verify::read_station_series(sites, reports);
  return e;
}

verify::ScoreTable scores(const Evaluation& e) {
  const auto& system = *e.system;
  const auto select = [&](state::Purpose purpose) {
    return system.split.read(system.fields, purpose, {.variables = {system.variable.name}});
  };
  const auto training = select(state::Purpose::training),
             truth = select(state::Purpose::evaluation);
  for (const auto& [name, box] : {std::pair("focus", e.focus), {"random_sites.box", e.sites}}) {
    HALCYON_CHECK_KIND(state::inside(truth.grid, box).any().item<bool>(), configuration, "evaluate",
                       "expected {} to hold points of the fields' grid, got none in {} to {} east, "
                       "{} to {} north",
                       name, box.west, box.east, box.south, box.north);
  }
  const auto in_period = [&](int64_t time) {
    return time >= e.real_period.start && time < e.real_period.end;
  };
  HALCYON_CHECK_KIND(std::any_of(truth.times.begin(), truth.times.end(), in_period), configuration,
                     "evaluate",
                     "expected real_period to hold analysis times, got none from {} to {}",
                     format_time(e.real_period.start), format_time(e.real_period.end));
  const auto climatology = std::make_shared<state::Climatology>(system.climatology);
  verify::OptimalInterpolationAnalyser oi(climatology, training),
      lagged(climatology, training, system.ages);
  verify::ClimatologyAnalyser mean(climatology);
  assimilation::RegionalAnalyser network(e.system, e.model);
  const verify::Analysers analysers{&oi, &lagged, &mean, &network};

  log::info("real observations, each station withheld in turn");
  const verify::RealObservations real(truth, e.stations, e.real_period);
  auto table =
      evaluate_real_leave_one_out(real, truth.grid, system.variable.units, analysers, e.options);
  log::info("simulated observations at the stations");
  table.append(evaluate_simulated_cities(truth, e.stations, e.focus, analysers, e.options));
  log::info("simulated observations at random sites");
  table.append(evaluate_simulated_random(truth, e.sites, analysers, e.options));
  std::cout << table.text();
  std::cout << fmt::format("The reanalysis itself predicts the withheld reports with {:.2f} {}.\n",
                           real.truth_rmse(), system.variable.units);
  return table;
}

void evaluate(const Arguments& arguments) {
  const auto e = read(config::load(arguments.run, arguments.overrides));
  if (arguments.dry_run) {
    std::cout << "The configuration is valid.\n";
    return;
  }
  if (e.output) prepare_folder_of(*e.output);
  e.tuning.apply();
  const auto table = scores(e);
  if (e.output) table.save(*e.output);
}

}  // namespace

void add_evaluate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "evaluate", "Score a network beside climatology and optimal interpolation");
  command->add_option("RUN", arguments->run, "YAML configuration (docs/north_america.md)")
      ->required();
  command->add_option("--set", arguments->overrides, "Override a key: --set seed=3");
  command->add_flag("--dry-run", arguments->dry_run, "Check the configuration and stop");
  command->callback([arguments] { evaluate(*arguments); });
}

}  // namespace halcyon::cli
