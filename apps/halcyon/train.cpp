// SPDX-License-Identifier: Apache-2.0
// halcyon train RUN.yaml: a network for a regional system, on simulated observations.
#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <iostream>
#include <memory>

#include "apps/halcyon/commands.h"
#include "apps/halcyon/ranks.h"
#include "halcyon/assimilation/regional_task.h"
#include "halcyon/base/config.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/log.h"
#include "halcyon/model/checkpoint.h"
#include "halcyon/ops/tuning/config.h"
#include "halcyon/plots/graphs.h"
#include "halcyon/training/trainer.h"

namespace halcyon::cli {

namespace {

struct Arguments {
  std::filesystem::path run;
  std::vector<std::string> overrides;
  bool dry_run = false;
};

std::atomic<bool> stop_asked{false};  // by SIGTERM or SIGINT: the run saves and ends

std::filesystem::path draw_losses(const std::filesystem::path& folder) {
  auto curves = plots::curves_of_log(folder / "training.csv");
  curves.title = "Training loss";
  const auto picture = folder / "loss.png";
  plots::plot_curves(picture, curves);
  return picture;
}

HealDA model_of(const assimilation::RegionalSystem& system, const config::Node& run) {
  const auto config = assimilation::regional_config(system, run.section("model"));
  try {
    return HealDA(config);
  } catch (const Error& e) {  // sizes that do not go together
    run.fail("model", e.what());
  }
}

void train(const Arguments& arguments) {
  const auto world = start_ranks();
  const bool leads = world.group().rank() == 0;
  const auto run = config::load(arguments.run, arguments.overrides);
  const auto file = config::load(run.input_file("system"));
  const auto weights = run.required<std::filesystem::path>("weights");
  const auto config = training::TrainConfig::from(run.section("training"));
  const auto tuning = tuning::Config::from(run);
  const auto system = assimilation::RegionalSystem::from_config(file);
  file.finish();
  torch::manual_seed(config.seed);
  auto model = model_of(system, run);
  assimilation::RegionalTask task(system, model, run, config.loss);
  run.finish();
  if (arguments.dry_run) {
    if (leads) std::cout << "The configuration is valid.\n";
    return;
  }
  if (leads) prepare_folder_of(weights);
  tuning.apply();
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  if (leads) {
    log::info("{}: {} parameters, {} tokens, {} pixels", system.name, parameters,
              system.tokens.size(), system.pixels.size());
  }

  std::signal(SIGTERM, [](int) { stop_asked = true; });
  std::signal(SIGINT, [](int) { stop_asked = true; });
  training::TrainOptions options;
  options.stop = [] { return stop_asked.load(); };
  options.group = world.group();
  options.provenance = {
      {"system", file.resolved()}, {"run", run.resolved()}, {"model", model->config().to_json()}};
  training::Trainer trainer(task, config, options);
  const auto outcome = trainer.run();
  if (!leads) return;
  if (outcome.step >= 2) std::cout << draw_losses(config.output).string() << "\n";
  if (!outcome.finished) {
    std::cout << fmt::format("Stopped after step {}; the same command goes on from there.\n",
                             outcome.step);
    return;
  }
  const training::MovingAverage::Scope averaged(trainer.average());
  save_checkpoint(model, weights);
  std::cout << weights.string() << "\n";
}

}  // namespace

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "train",
      "Train a network on simulated observations, on one process or as many as torchrun, mpirun "
      "or srun start (docs/parallel.md)");
  command->add_option("RUN", arguments->run, "YAML configuration (docs/north_america.md)")
      ->required();
  command->add_option("--set", arguments->overrides, "Override a key: --set training.steps=100");
  command->add_flag("--dry-run", arguments->dry_run, "Check the configuration and stop");
  command->callback([arguments] { train(*arguments); });
}

}  // namespace halcyon::cli
