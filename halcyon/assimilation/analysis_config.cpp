// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/analysis_run.h"

namespace halcyon::assimilation {

AnalysisConfig AnalysisConfig::from(const config::Node& run) {
  AnalysisConfig c;
  const auto file = config::load(run.input_file("system"));
  c.checkpoint = run.input_file("checkpoint");
  c.device = run.optional<std::string>("device", "cpu");
  const auto times = run.section("times");
  c.times = time_range(times.time("start"), times.time("end"), times.duration("step", 6 * 3600));

  const auto observations = run.section("observations");
  c.observation_files = observations.input_files("files");
  c.observation_format = observations.optional<std::string>("format", "auto");
  if (observations.has("stations")) c.station_file = observations.input_file("stations");
  c.withheld = observations.optional<std::vector<std::string>>("withhold", {});
  c.default_error_sd = observations.optional<double>("error_sd", 2.0, config::positive());
  c.age_tolerance = observations.duration("age_tolerance", 1800);

  const auto control = run.section_or_defaults("quality_control");
  c.gross_limit = control.optional<double>("gross_limit", 4.0, config::positive());
  c.rules.variables = {observations.optional<std::string>("variable", "t2m")};
  const auto low = control.maybe<double>("lowest"), high = control.maybe<double>("highest");
  control.check(low.has_value() == high.has_value(), low ? "lowest" : "highest",
                "expected both lowest and highest, or neither");
  if (low) c.rules.range[c.rules.variables[0]] = {*low, *high};

  if (const auto bias = run.maybe_section("bias_correction")) {
    c.bias_period = state::Interval{bias->time("start"), bias->time("end")};
    bias->check(c.bias_period->start < c.bias_period->end, "end", "expected a time after start");
  }
  c.output = run.required<std::filesystem::path>("output");
  run.section_or_defaults("plots").optional<bool>("enabled", true);
  run.section_or_defaults("plots").maybe<std::string>("series_station");
  run.finish();
  c.system = std::make_shared<RegionalSystem>(RegionalSystem::from_config(file));
  file.finish();
  c.resolved = {{"run", run.resolved()}, {"system", file.resolved()}};
  return c;
}

}  // namespace halcyon::assimilation
