// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/halcyon/commands.h"
#include "halcyon/base/error.h"
#include "halcyon/base/text.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/summary.h"

namespace halcyon::cli {
namespace {

struct Arguments {
  std::vector<std::string> patterns;
  std::string format = "auto";
  obs::ReadOptions options;
  std::filesystem::path out;
  bool as_json = false, check = false;
};

// One file at a time: a file that is wrong ends the work after what was printed of the others.
void inspect(const Arguments& arguments) {
  auto all = nlohmann::ordered_json::array();
  for (const auto& path : obs::expand(arguments.patterns)) {
    auto facts = obs::summary(path, obs::read_file(path, arguments.format, arguments.options));
    if (!arguments.as_json) {
      std::cout << obs::summary_text(facts) << '\n';
      continue;
    }
    facts.erase("quality_control_table");
    all.push_back(std::move(facts));
  }
  if (arguments.as_json) std::cout << json_text(all, 2) << '\n';
}

void convert(const Arguments& arguments) {
  const auto type = arguments.out.extension();
  HALCYON_CHECK(type == ".nc" || type == ".csv", "obs convert",
                "expected an output that ends in .nc or .csv, got {}", arguments.out.string());
  const auto files = obs::expand(arguments.patterns);
  auto table = obs::read_files(files, arguments.format, arguments.options);
  if (arguments.check) {
    const auto codes = obs::quality_control(table, obs::SurfaceRules{});
    std::cout << obs::reason_table(table, codes);
    table.set("qc", codes);
  }
  if (type == ".csv") {
    obs::write_csv(arguments.out, table);
  } else {
    std::string sources;
    for (const auto& file : files) sources += (sources.empty() ? "" : " ") + file.string();
    obs::write_observations(arguments.out, table, {{"source", sources}});
  }
  std::cout << fmt::format("{}: {} rows from {} files\n", arguments.out.string(), table.rows(),
                           files.size());
}

void add_common(CLI::App& command, const std::shared_ptr<Arguments>& arguments) {
  std::string names = "auto (by content)";
  for (const auto* format : obs::formats()) names += ", " + format->name;
  command.add_option("--format", arguments->format, "format of the files: " + names);
  command.add_option("--variables", arguments->options.variables, "only these, as in t2m,mslp")
      ->delimiter(',');
  command.add_option("--stations", arguments->options.stations,
                     "table of stations of files without positions");
}

}  // namespace

void add_obs(CLI::App& app) {
  auto* group = app.add_subcommand("obs", "Look into and convert files of observations");
  group->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();

  auto* inspecting = group->add_subcommand(
      "inspect", "Print what files hold: rows, times, box, variables, counts of quality control");
  inspecting->add_option("files", arguments->patterns, "files or quoted patterns")->required();
  inspecting->add_flag("--json", arguments->as_json, "print JSON");
  add_common(*inspecting, arguments);
  inspecting->callback([arguments] { inspect(*arguments); });

  auto* converting =
      group->add_subcommand("convert", "Write all files' observations into one NetCDF or CSV file");
  converting->add_option("files", arguments->patterns, "files or quoted patterns")->required();
  converting->add_option("-o,--output", arguments->out, "the .nc or .csv file to write")
      ->required();
  converting->add_flag("--qc", arguments->check, "add the column qc and print the counts");
  add_common(*converting, arguments);
  converting->callback([arguments] { convert(*arguments); });
}

}  // namespace halcyon::cli
