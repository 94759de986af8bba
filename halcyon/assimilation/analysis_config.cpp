// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/analysis_run.h"
#include "halcyon/base/device.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/variables.h"

namespace halcyon::assimilation {

AnalysisConfig AnalysisConfig::from(const config::Node& run) {
  AnalysisConfig c;
  const auto file = config::load(run.input_file("system"));
  c.checkpoint = run.input_file("checkpoint");
  c.device = run.optional<std::string>("device", "cpu");
  try {
    open_device(c.device);
  } catch (const Error& e) {
    run.fail("device", e.what());
  }
  static const config::Names<at::ScalarType> kPrecisions{{"fp32", at::kFloat},
                                                         {"bf16", at::kBFloat16}};
  c.precision = run.choice("precision", kPrecisions, c.precision);
  const auto times = run.section("times");
  const int64_t first = times.time("start"), last = times.time("end"),
                step = times.duration("step", 6 * 3600);
  times.check(first <= last, "end", "expected a time that is not before start");
  times.check(step > 0, "step", "expected a positive duration");
  c.times = time_range(first, last, step);

  const auto observations = run.section("observations");
  c.observation_files = observations.input_files("files");
  config::Names<std::string> formats{{"auto", "auto"}}, variables;
  for (const auto* format : obs::formats()) formats.emplace_back(format->name, format->name);
  c.observation_format = observations.choice<std::string>("format", formats, "auto");
  for (const auto& variable : obs::variables())
    variables.emplace_back(variable.name, std::string(variable.name));
  c.rules.variables = {observations.choice<std::string>("variable", variables, "t2m")};
  if (observations.has("stations")) c.station_file = observations.input_file("stations");
  c.withheld = observations.optional<std::vector<std::string>>("withhold", {});
  c.default_error_sd = observations.optional<double>("error_sd", 2.0, config::positive());
  c.age_tolerance = observations.duration("age_tolerance", 1800);
  static const config::Names<SeveralReports> kSeveral{{"nearest", SeveralReports::nearest},
                                                      {"inflate", SeveralReports::inflate}};
  c.several_reports = observations.choice("several_reports", kSeveral, c.several_reports);

  const auto control = run.section_or_defaults("quality_control");
  c.gross_limit = control.optional<double>("gross_limit", 4.0, config::positive());
  const auto low = control.maybe<double>("lowest"), high = control.maybe<double>("highest");
  control.check(low.has_value() == high.has_value(), low ? "lowest" : "highest",
                "expected both lowest and highest, or neither");
  control.check(!low || *low <= *high, "highest", "expected highest not below lowest");
  if (low) c.rules.range[c.rules.variables[0]] = {*low, *high};

  if (const auto bias = run.maybe_section("bias_correction")) {
    c.bias_period = state::Interval{bias->time("start"), bias->time("end")};
    bias->check(c.bias_period->start < c.bias_period->end, "end", "expected a time after start");
  }
  c.tuning = tuning::Config::from(run);
  c.output = run.required<std::filesystem::path>("output");
  const auto plots = run.section_or_defaults("plots");
  c.series_station = plots.maybe<std::string>("series_station");
  if (!plots.optional<bool>("enabled", true)) c.series_station.reset();
  run.finish();
  c.system = std::make_shared<RegionalSystem>(RegionalSystem::from_config(file));
  file.finish();
  const auto units = obs::variable(obs::variable_number(c.rules.variables[0])).units;
  const auto& wanted = c.system->variable.units;
  const bool kelvin = units == "K" && wanted == "degK";  // as older files write it
  observations.check(units == wanted || kelvin, "variable",
                     "expected observations in {} as the fields of {} are, got {} in {}", wanted,
                     c.system->variable.name, c.rules.variables[0], units);
  c.resolved = {{"run", run.resolved()}, {"system", file.resolved()}};
  return c;
}

}  // namespace halcyon::assimilation
