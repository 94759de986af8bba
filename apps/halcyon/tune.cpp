// SPDX-License-Identifier: Apache-2.0
// halcyon tune MODEL: measures what training and analyses would measure in their first steps.
#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "apps/halcyon/commands.h"
#include "halcyon/assimilation/analysis_run.h"
#include "halcyon/assimilation/regional_system.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/log.h"
#include "halcyon/base/progress.h"
#include "halcyon/model/checkpoint/file.h"
#include "halcyon/model/tuning_calls.h"
#include "halcyon/ops/tuning/autotuner.h"
#include "halcyon/training/numerics.h"
#include "halcyon/training/train_config.h"

namespace halcyon::cli {

namespace {

struct Arguments {
  std::filesystem::path model, cache;
  std::vector<std::string> overrides;
  std::vector<int64_t> batches, observations;
  bool training = false, thorough = false;
};

struct Plan {
  HealDAConfig model;
  TuningCalls calls;
  bool bf16 = false;
  std::optional<std::filesystem::path> cache;
};

HealDAConfig model_of(const std::filesystem::path& file) {
  if (file.extension() != ".json") return HealDAConfig::from_json(read_checkpoint(file).config);
  try {
    return HealDAConfig::from_json(nlohmann::ordered_json::parse(read_text(file)));
  } catch (const nlohmann::json::exception& e) {
    throw_error(ErrorKind::input, "tune",
                fmt::format("expected JSON in {}, got {}", file.string(), e.what()));
  }
}

// Analyses go through the model in pieces of this many.
constexpr int64_t kPiece = assimilation::RegionalModel::kChunk;

Plan plan_of_run(const config::Node& run) {
  Plan plan;
  if (run.has("checkpoint")) {
    const auto analysis = assimilation::AnalysisConfig::from(run);
    plan.model = model_of(analysis.checkpoint);
    plan.cache = analysis.tuning.cache;
    const auto count = static_cast<int64_t>(analysis.times.times().size());
    plan.calls.batches = {std::min(count, kPiece)};
    if (count > kPiece && count % kPiece != 0) plan.calls.batches.push_back(count % kPiece);
    return plan;
  }
  const auto system =
      assimilation::RegionalSystem::from_config(config::load(run.input_file("system")));
  plan.model = assimilation::regional_config(system, run.section("model"));
  const auto batch = run.section("batch");
  plan.calls.batches = {batch.required<int64_t>("networks", config::at_least(1)) *
                            batch.required<int64_t>("fields", config::at_least(1)),
                        kPiece};
  plan.calls.training = true;
  plan.bf16 =
      training::TrainConfig::from(run.section("training")).precision == training::Precision::bf16;
  plan.cache = tuning::Config::from(run).cache;
  return plan;
}

Plan plan_of(const Arguments& arguments) {
  const auto kind = arguments.model.extension();
  const bool is_run = kind == ".yaml" || kind == ".yml";
  HALCYON_CHECK(is_run || arguments.overrides.empty(), "tune",
                "expected --set with a YAML configuration only, got it with {}",
                arguments.model.string());
  Plan plan;
  if (is_run)
    plan = plan_of_run(config::load(arguments.model, arguments.overrides));
  else
    plan.model = model_of(arguments.model);
  if (!arguments.batches.empty()) plan.calls.batches = arguments.batches;
  if (!arguments.observations.empty()) plan.calls.observations = arguments.observations;
  plan.calls.training = plan.calls.training || arguments.training;
  if (!arguments.cache.empty()) plan.cache = arguments.cache;
  if (!plan.cache) plan.cache = tuning::cache_file();
  HALCYON_CHECK(plan.cache.has_value(), "tune",
                "expected a cache file by --cache, the configuration or HALCYON_TUNING_CACHE, "
                "got none");
  return plan;
}

void print(const std::vector<tuning::Chosen>& chosen) {
  for (const auto& [operation, problem, choice, measured] : chosen) {
    std::multimap<double, std::string> fastest_first;
    for (const auto& [candidate, time] : choice.milliseconds)
      fastest_first.emplace(time, fmt::format("{} {:.3f} ms, ", candidate, time));
    std::string times;
    for (const auto& [time, text] : fastest_first) times += text;
    std::cout << fmt::format("{}: {}\n  {} ({}{})\n", operation, problem, choice.candidate, times,
                             measured ? "measured" : "was there");
  }
}

void tune(const Arguments& arguments) {
  const auto plan = plan_of(arguments);
  prepare_folder_of(*plan.cache);
  tuning::use_cache_file(plan.cache);
  const AutotunerPass pass{.thorough = arguments.thorough};
  use_autotuner(pass, pass);
  {
    const training::Bf16Autocast autocast(at::kCPU, plan.bf16);
    Progress progress(
        "tune", static_cast<int64_t>(plan.calls.batches.size() * plan.calls.observations.size()));
    make_tuning_calls(plan.model, plan.calls, [&](int64_t done, int64_t) {
      progress.update(done, fmt::format("{} problems", tuning::chosen().size()));
    });
    progress.finish();
  }
  const auto chosen = tuning::chosen();
  print(chosen);
  for (const auto& c : chosen) {
    HALCYON_CHECK_KIND(tuning::stored_choice(c.operation, c.problem).has_value(), output, "tune",
                       "{}: expected every choice to be written, got none for {}",
                       plan.cache->string(), c.problem);
  }
  if (chosen.empty()) log::warn("this model has nothing to tune: no product is large enough");
  const auto measured = std::count_if(chosen.begin(), chosen.end(),
                                      [](const tuning::Chosen& c) { return c.measured; });
  std::cout << fmt::format("{} problems, threads {}: {} measured, {} were there; {}\n",
                           chosen.size(), at::get_num_threads(), measured,
                           static_cast<std::ptrdiff_t>(chosen.size()) - measured,
                           plan.cache->string());
}

}  // namespace

void add_tune(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "tune", "Measure the fastest way to compute a model's products ahead of time");
  command
      ->add_option("MODEL", arguments->model,
                   "YAML configuration of a training (its backward is tuned as well) or of an "
                   "analysis, a checkpoint, or HealDA's arguments as .json")
      ->required();
  command->add_option("--cache", arguments->cache,
                      "The file to fill (else: the configuration's tuning.cache, then "
                      "HALCYON_TUNING_CACHE)");
  command->add_option("--set", arguments->overrides, "Override a key: --set batch.fields=4");
  command->add_flag("--training", arguments->training, "Tune the backward as well");
  command->add_flag("--thorough", arguments->thorough, "Try more candidates");
  command->add_option("--batch", arguments->batches, "Samples of a call: --batch 1,32")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}));
  command
      ->add_option("--observations", arguments->observations,
                   "Observations of a call (100,10000,1000000)")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{0}, int64_t{1'000'000'000}));
  command->callback([arguments] { tune(*arguments); });
}

}  // namespace halcyon::cli
