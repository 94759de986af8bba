// SPDX-License-Identifier: Apache-2.0
// halcyon analyze RUN.yaml: observation files to analyses and their record.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "apps/halcyon/commands.h"
#include "apps/halcyon/pictures.h"
#include "apps/halcyon/ranks.h"
#include "halcyon/assimilation/analysis_run.h"

namespace halcyon::cli {

namespace {

struct Arguments {
  std::filesystem::path run;
  std::vector<std::string> overrides;
  bool dry_run = false;
};

void analyze(const Arguments& arguments, const std::string& command_line) {
  const auto world = start_ranks();
  const bool leads = world.group().rank() == 0;
  const auto run = config::load(arguments.run, arguments.overrides);
  const auto config = assimilation::AnalysisConfig::from(run);
  const auto plots = run.section_or_defaults("plots");
  if (arguments.dry_run) {
    if (leads) std::cout << "The configuration is valid.\n";
    return;
  }
  config.tuning.apply();
  const auto analysis = assimilation::analyse(config, world.group());
  if (!leads) return;
  auto products = assimilation::write_products(config, analysis, command_line);
  if (plots.optional<bool>("enabled", true)) {
    for (auto& picture : draw_analysis(config, analysis, config.series_station))
      products.push_back(std::move(picture));
  }
  const auto s = assimilation::summary(analysis.feedback);
  std::cout << fmt::format("{} analyses; {} of {} reports used; O-B {:.2f}, O-A {:.2f} {} (RMSE)\n",
                           analysis.grid.times.size(), s.used, s.rows, s.rmse_ob, s.rmse_oa,
                           config.system->variable.units);
  for (const auto& product : products) std::cout << product.string() << '\n';
}

}  // namespace

void add_analyze(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  auto* command = app.add_subcommand(
      "analyze",
      "Assimilate observation files and write the analysis; over the ranks of torchrun, "
      "mpirun or srun, which share the times (docs/parallel.md)");
  command->add_option("RUN", arguments->run, "YAML configuration (docs/north_america.md)")
      ->required();
  command->add_option("--set", arguments->overrides,
                      "Override a key: --set times.start=2014-07-04");
  command->add_flag("--dry-run", arguments->dry_run, "Check the configuration and stop");
  command->callback([arguments] {
    std::string line = "halcyon analyze " + arguments->run.string();
    for (const auto& o : arguments->overrides) line += " --set " + o;
    analyze(*arguments, line);
  });
}

}  // namespace halcyon::cli
