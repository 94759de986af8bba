// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>

#include <chrono>
#include <numeric>

#include "halcyon/assimilation/analysis_run.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/text.h"
#include "halcyon/base/versions.h"
#include "halcyon/state/write_fields.h"

namespace halcyon::assimilation {

namespace fs = std::filesystem;

namespace {

std::string now() {
  return format_time(std::chrono::duration_cast<std::chrono::seconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count());
}

nlohmann::ordered_json files_with_hashes(const std::vector<fs::path>& files) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& file : files) {
    list.push_back({{"path", printable(file.native())},
                    {"sha256", sha256_of_file(file)},
                    {"bytes", fs::file_size(file)}});
  }
  return list;
}

// Times whose analysis had nothing to go by.
std::string without_observations(const Analysis& analysis) {
  std::string list;
  for (std::size_t t = 0; t < analysis.used.size(); ++t) {
    if (analysis.used[t] == 0)
      list += (list.empty() ? "" : " ") + format_time(analysis.grid.times[t]);
  }
  return list;
}

nlohmann::ordered_json record(const AnalysisConfig& config, const Analysis& analysis,
                              const std::string& command_line) {
  const auto s = summary(analysis.feedback);
  nlohmann::ordered_json reasons = nlohmann::ordered_json::object();
  for (const auto& row : analysis.feedback) {
    auto& count = reasons[analysis.reasons.at(row.reason)];
    count = (count.is_null() ? 0 : count.get<int64_t>()) + 1;
  }
  nlohmann::ordered_json reports = nlohmann::ordered_json::object();
  for (std::size_t code = 0; code < analysis.reports.size(); ++code) {
    if (analysis.reports[code] > 0) reports[analysis.reasons[code]] = analysis.reports[code];
  }
  nlohmann::ordered_json per_time = nlohmann::ordered_json::array();
  for (std::size_t t = 0; t < analysis.used.size(); ++t) {
    per_time.push_back({{"time", format_time(analysis.grid.times[t])},
                        {"observations_used", analysis.used[t]},
                        {"from_no_observations", analysis.used[t] == 0}});
  }
  nlohmann::ordered_json libraries;
  for (const auto& [name, number] : library_versions()) libraries[name] = number;
  return {{"program", "halcyon"},
          {"created", now()},
          {"command_line", printable(command_line)},
          {"configuration", config.resolved},
          {"device", config.device},
          {"checkpoint", files_with_hashes({config.checkpoint})[0]},
          {"inputs", files_with_hashes(config.observation_files)},
          {"fields", files_with_hashes({config.system->fields})[0]},
          {"version", version()},
          {"libraries", libraries},
          {"processor", cpu_model()},
          {"threads", at::get_num_threads()},
          {"reports", reports},
          {"feedback",
           {{"rows", s.rows},
            {"used", s.used},
            {"by_reason", reasons},
            {"observation_minus_climatology", {{"mean", s.mean_ob}, {"rmse", s.rmse_ob}}},
            {"observation_minus_analysis", {{"mean", s.mean_oa}, {"rmse", s.rmse_oa}}}}},
          {"analyses", per_time}};
}

}  // namespace

std::vector<fs::path> write_products(const AnalysisConfig& config, const Analysis& analysis,
                                     const std::string& command_line) {
  std::error_code failure;
  fs::create_directories(config.output, failure);
  HALCYON_CHECK_KIND(!failure, output, "analyze", "{}: {}", config.output.string(),
                     failure.message());
  const auto run = record(config, analysis, command_line);
  state::ProductAttributes attributes;
  attributes.title = config.system->name + ", analysis";
  attributes.source =
      "Halcyon, learned assimilation of surface observations (no first guess; departures from "
      "the climatology of the training period)";
  attributes.history = run["created"].get<std::string>() + ": " + command_line;
  attributes.more = {{"checkpoint_sha256", run["checkpoint"]["sha256"].get<std::string>()},
                     {"configuration", json_text(config.resolved)},
                     {"analyses_without_observations", without_observations(analysis)}};
  const auto path = [&](const char* name) { return config.output / name; };
  state::write_fields(path("analysis_latlon.nc"), analysis.grid, attributes);
  state::write_fields(path("analysis_healpix.nc"), analysis.pixels, attributes);
  std::vector<std::pair<std::string, std::string>> feedback_attributes = attributes.more;
  feedback_attributes.emplace_back("title", config.system->name + ", feedback on observations");
  feedback_attributes.emplace_back("history", attributes.history);
  write_feedback(path("feedback.nc"), analysis.feedback, config.system->variable.name,
                 config.system->variable.units, analysis.reasons, feedback_attributes);
  write_text(path("run.json"), json_text(run, 2) + "\n");
  return {path("analysis_latlon.nc"), path("analysis_healpix.nc"), path("feedback.nc"),
          path("run.json")};
}

}  // namespace halcyon::assimilation
