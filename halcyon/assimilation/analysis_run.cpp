// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/analysis_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "halcyon/base/device.h"
#include "halcyon/base/error.h"
#include "halcyon/base/log.h"
#include "halcyon/base/suggest.h"
#include "halcyon/model/checkpoint.h"
#include "halcyon/obs/bias.h"
#include "halcyon/obs/reader.h"
#include "halcyon/parallel/rows.h"
#include "halcyon/state/read_fields.h"

namespace halcyon::assimilation {

namespace {

constexpr int64_t kNanoseconds = 1'000'000'000;

// Reports as the analysis needs them, one element a row of the table.
struct Reports {
  obs::Table table;
  std::vector<int64_t> time;  // seconds
  std::vector<double> lat, lon;
  std::vector<float> value, bias, error_sd;  // value as reported; bias NaN where unknown
  std::vector<std::string> station;
  std::vector<int32_t> reason;
  int64_t size() const { return static_cast<int64_t>(time.size()); }
};

template <class T>
std::vector<T> copy(const obs::Table& table, std::string_view name) {
  const auto span = table.values<T>(name);
  return {span.begin(), span.end()};
}

Reports reports_of(const obs::Table& table, const at::Tensor& codes) {
  Reports r;
  r.table = table;
  for (const int64_t t : table.values<int64_t>("time_ns")) r.time.push_back(t / kNanoseconds);
  r.lat = copy<double>(table, "lat");
  r.lon = copy<double>(table, "lon");
  r.value = copy<float>(table, "value");
  r.error_sd = copy<float>(table, "error_sd");
  r.bias.assign(r.value.size(), FeedbackRow::kMissing);
  for (int64_t i = 0; i < table.rows(); ++i) r.station.push_back(table.text("station", i));
  const auto* c = codes.const_data_ptr<int32_t>();
  r.reason.assign(c, c + codes.numel());
  return r;
}

// A field (X) on the grid at places; NaN outside the grid and where the place is impossible.
at::Tensor at_places(const RegionalSystem& system, const std::vector<double>& lon,
                     const std::vector<double>& lat, const at::Tensor& field) {
  const auto x = at::tensor(lon, at::kDouble), y = at::tensor(lat, at::kDouble);
  const auto there = y.abs().le(90).logical_and(x.isfinite());
  const auto values =
      bilinear_to_points(system.grid, x.where(there, 0.0), y.where(there, 0.0)).apply(field);
  return values.where(there, std::numeric_limits<double>::quiet_NaN());
}

at::Tensor at_reports(const RegionalSystem& system, const Reports& reports,
                      const at::Tensor& field) {
  return at_places(system, reports.lon, reports.lat, field);
}

bool is_withheld(int32_t reason) {
  return reason == static_cast<int32_t>(obs::Reason::blocked_station);
}

// The place of the time nearest to time, or nothing where none is within the tolerance.
std::optional<int64_t> nearest_time(const std::vector<int64_t>& times, int64_t time,
                                    int64_t tolerance) {
  auto found = std::lower_bound(times.begin(), times.end(), time);
  if (found == times.end() || (found != times.begin() && time - found[-1] <= *found - time))
    --found;
  if (std::abs(*found - time) > tolerance) return std::nullopt;
  return found - times.begin();
}

// Station statistics from the even days of the period, against the system's fields; taken off every
// report that has some, and off those of withheld stations, which verify the analysis.
void correct_bias(const AnalysisConfig& config, const obs::Table& table, Reports& reports) {
  const auto& system = *config.system;
  const auto even = [](int64_t time) {
    return (static_cast<int64_t>(std::floor(day_of_year(time))) + 1) % 2 == 0;
  };
  const auto truth = system.split.read(system.fields, state::Purpose::evaluation,
                                       {.variables = {system.variable.name}});
  // Several reports of a station near one time of the fields count once in each hour.
  std::map<std::pair<int64_t, int64_t>, std::vector<Candidate>> near;  // by field and hour
  for (int64_t i = 0; i < reports.size(); ++i) {
    const int64_t time = reports.time[i];
    const bool good = reports.reason[i] == 0 || is_withheld(reports.reason[i]);
    if (!good || time < config.bias_period->start || time >= config.bias_period->end ||
        !even(time)) {
      continue;
    }
    const auto place = nearest_time(truth.times, time, config.age_tolerance);
    if (!place) continue;
    near[{*place, static_cast<int64_t>(second_of_day(time) / 3600)}].push_back(
        {i, std::abs(time - truth.times[*place])});
  }
  std::map<int64_t, int64_t> field_of;  // of each row that counts
  for (const auto& [key, candidates] : near) {
    const auto counts = count_of_station(table, candidates);
    for (std::size_t k = 0; k < counts.size(); ++k) {
      if (counts[k] > 0) field_of[candidates[k].row] = key.first;
    }
  }
  std::vector<int64_t> rows;
  std::vector<double> departures;
  for (const auto& [i, place] : field_of) {
    const auto site = bilinear_to_points(system.grid, at::tensor({reports.lon[i]}, at::kDouble),
                                         at::tensor({reports.lat[i]}, at::kDouble));
    const auto field = truth.data[place][0];
    rows.push_back(i);
    departures.push_back(reports.value[i] - site.apply(field.to(at::kDouble)).item<double>());
  }
  HALCYON_CHECK_KIND(!rows.empty(), input, "bias_correction",
                     "expected reports on even days between {} and {} at the times of {}, got none",
                     format_time(config.bias_period->start), format_time(config.bias_period->end),
                     system.fields.string());
  const auto bias = obs::StationBias::fit(table.select(at::tensor(rows, at::kLong)),
                                          at::tensor(departures, at::kDouble));
  const auto variables = table.values<int32_t>("variable");
  for (int64_t i = 0; i < reports.size(); ++i) {
    const bool withheld = is_withheld(reports.reason[i]);
    if (reports.reason[i] != 0 && !withheld) continue;
    const int64_t seconds = reports.time[i];
    const auto month =
        civil_from_days(static_cast<int64_t>(std::floor(static_cast<double>(seconds) / 86400)))
            .month;
    const auto hour = static_cast<int>(second_of_day(seconds) / 3600);
    const auto known = bias.bias(reports.station[i], variables[i], month, hour);
    if (std::isnan(known)) {
      if (!withheld) reports.reason[i] = static_cast<int32_t>(obs::Reason::no_bias_statistics);
      continue;
    }
    reports.bias[i] = static_cast<float>(known);
    reports.error_sd[i] =
        static_cast<float>(std::sqrt(bias.variance(reports.station[i], variables[i])));
  }
}

// Climatology and its spread at every report, at the report's own time.
struct Background {
  std::vector<float> climatology, spread;
};

Background background_of(const RegionalSystem& system, const Reports& reports) {
  Background b;
  const auto spread = at_reports(system, reports, system.spread.to(at::kDouble));
  b.climatology.assign(reports.time.size(), FeedbackRow::kMissing);
  std::map<int64_t, std::vector<int64_t>> by_time;
  for (int64_t i = 0; i < reports.size(); ++i) {
    b.spread.push_back(static_cast<float>(spread[i].item<double>()));
    by_time[reports.time[i]].push_back(i);
  }
  for (const auto& [time, rows] : by_time) {
    std::vector<double> lon, lat;
    for (const int64_t i : rows) {
      lon.push_back(reports.lon[i]);
      lat.push_back(reports.lat[i]);
    }
    const auto values = at_places(system, lon, lat, system.climatology.at(time)[0]);
    for (std::size_t k = 0; k < rows.size(); ++k) {
      b.climatology[rows[k]] = static_cast<float>(values[static_cast<int64_t>(k)].item<double>());
    }
  }
  return b;
}

// Reports too far from climatology to be believed.
void reject_gross(const AnalysisConfig& config, const Background& background, Reports& reports) {
  for (int64_t i = 0; i < reports.size(); ++i) {
    if (reports.reason[i] != 0) continue;
    if (std::isnan(background.climatology[i]) || std::isnan(background.spread[i])) {
      reports.reason[i] = static_cast<int32_t>(obs::Reason::outside_region);
      continue;
    }
    const float bias = std::isnan(reports.bias[i]) ? 0 : reports.bias[i];
    const double departure = std::abs(reports.value[i] - bias - background.climatology[i]);
    const double allowed =
        config.gross_limit * std::hypot(reports.error_sd[i], background.spread[i]);
    if (departure > allowed) reports.reason[i] = static_cast<int32_t>(obs::Reason::gross_departure);
  }
}

obs::Table read_observations(const AnalysisConfig& config) {
  obs::ReadOptions options;
  options.variables = config.rules.variables;
  options.stations = config.station_file;
  return obs::read_files(config.observation_files, config.observation_format, options);
}

void check_stations(const AnalysisConfig& config, const obs::Table& table) {
  const auto& known = table.column("station").names;
  const auto check = [&](const char* key, const std::string& name) {
    HALCYON_CHECK_KIND(std::find(known.begin(), known.end(), name) != known.end(), configuration,
                       "analyze", "{}: no station {} reports{}", key, name,
                       did_you_mean(name, known));
  };
  for (const auto& name : config.withheld) check("observations.withhold", name);
  if (config.series_station) check("plots.series_station", *config.series_station);
}

Reports controlled_reports(const AnalysisConfig& config, Background& background) {
  const auto table = read_observations(config);
  check_stations(config, table);
  auto rules = config.rules;
  rules.blocked_stations = config.withheld;
  rules.region = config.system->tokens;
  const auto codes = obs::quality_control(table, rules);
  log::info("quality control\n{}", obs::reason_table(table, codes));
  auto reports = reports_of(table, codes);
  for (auto& sd : reports.error_sd) {
    if (std::isnan(sd)) sd = static_cast<float>(config.default_error_sd);
  }
  if (config.bias_period) correct_bias(config, table, reports);
  background = background_of(*config.system, reports);
  reject_gross(config, background, reports);
  return reports;
}

// Each rank's share of the times, then those of all.
at::Tensor over_ranks(RegionalModel& network, const std::vector<DepartureSet>& batch,
                      const parallel::Group& group) {
  const auto count = static_cast<int64_t>(batch.size());
  const auto starts = parallel::starts_of(parallel::split_sizes(count, group));
  const auto mine = network.analyse_pixels(
      {batch.begin() + starts[group.rank()], batch.begin() + starts[group.rank() + 1]});
  return parallel::gather_rows(mine, 0, count, 0, group);
}

}  // namespace

Analysis analyse(const AnalysisConfig& config, const parallel::Group& group) {
  const auto& system = *config.system;
  Background background;
  const auto reports = controlled_reports(config, background);
  std::vector<FeedbackRow> feedback;
  std::vector<int64_t> used;

  const auto times = config.times.times();
  std::vector<DepartureSet> batch;
  std::vector<int64_t> row_of;  // the report of every feedback row
  auto outcome = reports.reason;
  std::vector<bool> in_any(outcome.size()), used_in_any(outcome.size());
  const WindowRules window_rules{system.ages, config.age_tolerance, config.several_reports};
  for (const int64_t time : times) {
    auto& set = batch.emplace_back(DepartureSet{time, {}});
    const auto window = window_of(reports.table, reports.time, reports.reason, time, window_rules);
    for (std::size_t k = 0; k < window.row.size(); ++k) {
      const auto i = window.row[k];
      const int64_t age = time - reports.time[i];
      const auto error_sd = static_cast<float>(reports.error_sd[i] * window.inflation[k]);
      in_any[i] = true;
      feedback.push_back({time, reports.time[i], reports.station[i], reports.lat[i], reports.lon[i],
                          reports.value[i], reports.bias[i], background.climatology[i],
                          FeedbackRow::kMissing, error_sd, window.reason[k],
                          std::abs(age) <= config.age_tolerance});
      row_of.push_back(i);
      if (window.reason[k] != 0) continue;
      used_in_any[i] = true;
      const float bias = std::isnan(reports.bias[i]) ? 0 : reports.bias[i];
      set.observations.push_back(
          {reports.lat[i], reports.lon[i], reports.value[i] - bias - background.climatology[i],
           error_sd, background.spread[i], static_cast<float>(std::max<int64_t>(age, 0)) / 3600});
    }
    used.push_back(static_cast<int64_t>(set.observations.size()));
    if (set.observations.empty()) {
      log::warn("{}: no usable observation; the analysis is that of no observations",
                format_time(time));
    }
  }

  std::vector<int64_t> counts(obs::qc_reasons().size());
  for (std::size_t i = 0; i < outcome.size(); ++i) {
    if (outcome[i] == 0 && !used_in_any[i])
      outcome[i] =
          static_cast<int32_t>(in_any[i] ? obs::Reason::not_nearest : obs::Reason::outside_window);
    ++counts[outcome[i]];
  }

  auto model = load_checkpoint(config.checkpoint);
  model->to(open_device(config.device), config.precision);
  model->prepare_inference();
  RegionalModel network(system, model);
  const auto pixels = over_ranks(network, batch, group);
  HALCYON_CHECK_KIND(pixels.isfinite().all().item<bool>(), numerics, "analyze",
                     "{}: the network's analysis is not finite", config.checkpoint.string());
  const auto departure = system.to_grid.apply(pixels);
  const auto climatology = system.climatology.at(times).select(1, 0);  // (T, X) float64
  const auto count = static_cast<int64_t>(times.size());
  const auto on_grid = (climatology + departure).to(at::kFloat);
  const auto mean_on_pixels = system.to_pixels.apply(climatology);
  const auto fields = [&](const Grid& grid, const at::Tensor& data) {
    return state::Fields{{system.variable}, grid, times, data.to(at::kFloat).view({count, 1, -1})};
  };

  // H(x) at every report of every analysis
  std::size_t row = 0;
  for (int64_t t = 0; t < count; ++t) {
    const auto at_all = at_reports(system, reports, on_grid[t].to(at::kDouble));
    for (; row < feedback.size() && feedback[row].analysis_time == times[t]; ++row) {
      feedback[row].analysis = static_cast<float>(at_all[row_of[row]].item<double>());
    }
  }
  std::vector<std::string> reasons(obs::qc_reasons().begin(), obs::qc_reasons().end());
  reasons[0] = "used";
  return {fields(system.grid, on_grid),
          fields(system.pixels, mean_on_pixels + pixels),
          fields(system.grid, departure),
          std::move(feedback),
          std::move(used),
          std::move(reasons),
          std::move(counts)};
}

}  // namespace halcyon::assimilation
