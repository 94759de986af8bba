// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/bias.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/same_station.h"
#include "halcyon/obs/split.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

std::size_t cell(const DayParts& day) {
  return static_cast<std::size_t>(day.month - 1) * 24 + static_cast<std::size_t>(day.hour);
}

struct Sums {
  std::array<double, 12 * 24> total{}, rows{};
  double squares = 0, residual = 0, count = 0;
};

nlohmann::json number_or_null(double x) {
  return std::isnan(x) ? nlohmann::json(nullptr) : nlohmann::json(x);
}

}  // namespace

StationBias StationBias::fit(const Table& table, const at::Tensor& departure) {
  check_observations(table, "StationBias.fit");
  HALCYON_CHECK(departure.defined() && departure.dim() == 1 && departure.numel() == table.rows() &&
                    at::isFloatingType(departure.scalar_type()),
                "StationBias.fit", "expected a floating departure for each of {} rows, got {}",
                table.rows(), describe(departure));
  const auto time = table.values<int64_t>("time_ns");
  const auto variable = table.values<int32_t>("variable");
  const auto station = table.values<int32_t>("station");
  const auto& names = table.column("station").names;
  const auto host = departure.detach().to(at::kCPU, at::kDouble).contiguous();
  const double* d = host.const_data_ptr<double>();

  StationBias out;
  out.first_ = std::numeric_limits<int64_t>::max();
  out.last_ = std::numeric_limits<int64_t>::min();
  std::map<std::pair<int32_t, int32_t>, Sums> sums;
  std::vector<DayParts> days;
  std::vector<bool> counts;
  Duplicates duplicates(table);
  for (std::size_t i = 0; i < time.size(); ++i) {
    HALCYON_CHECK(time[i] != kMissingTimeNs, "StationBias.fit", "row {} has no time", i);
    days.push_back(day_parts(time[i]));
    HALCYON_CHECK(days[i].day_of_year % 2 == 0, "StationBias.fit",
                  "expected rows of even days only, row {} is of {} (day {} of its year)", i,
                  format_time(time[i] / kNsPerSecond), days[i].day_of_year);
    counts.push_back(!std::isnan(d[i]) && !duplicates.seen(static_cast<int64_t>(i)));
    if (!counts[i]) continue;
    auto& sum = sums[{station[i], variable[i]}];
    sum.total[cell(days[i])] += d[i];
    ++sum.rows[cell(days[i])];
    out.first_ = std::min(out.first_, time[i]);
    out.last_ = std::max(out.last_, time[i]);
    ++out.rows_;
  }
  for (auto& [key, sum] : sums) {
    for (std::size_t c = 0; c < sum.total.size(); ++c) sum.total[c] /= sum.rows[c];  // 0/0: NaN
  }
  // two passes over what remains: its mean, then its variance
  const auto residual = [&](std::size_t i, const Sums& sum) {
    return d[i] - sum.total[cell(days[i])];
  };
  for (std::size_t i = 0; i < time.size(); ++i) {
    if (!counts[i]) continue;
    auto& sum = sums[{station[i], variable[i]}];
    sum.residual += residual(i, sum);
    ++sum.count;
  }
  for (std::size_t i = 0; i < time.size(); ++i) {
    if (!counts[i]) continue;
    auto& sum = sums[{station[i], variable[i]}];
    const double off = residual(i, sum) - sum.residual / sum.count;
    sum.squares += off * off;
  }
  for (const auto& [key, sum] : sums) {
    obs::variable(key.second);  // a number that to_json can name
    out.stations_[{names[static_cast<std::size_t>(key.first)], key.second}] = {
        sum.total, sum.squares / sum.count};
  }
  if (out.rows_ == 0) out.first_ = out.last_ = 0;
  return out;
}

const StationBias::Station* StationBias::find(const std::string& station, int32_t variable) const {
  const auto found = stations_.find({station, variable});
  return found == stations_.end() ? nullptr : &found->second;
}

double StationBias::bias(const std::string& station, int32_t variable, int month, int hour) const {
  HALCYON_CHECK(month >= 1 && month <= 12 && hour >= 0 && hour < 24, "StationBias",
                "expected a month 1..12 and an hour 0..23, got {} and {}", month, hour);
  const auto* found = find(station, variable);
  return found ? found->bias[cell({0, month, hour})] : NAN;
}

double StationBias::variance(const std::string& station, int32_t variable) const {
  const auto* found = find(station, variable);
  return found ? found->variance : NAN;
}

StationBias::Applied StationBias::apply(const Table& table) const {
  check_observations(table, "StationBias.apply");
  const auto time = table.values<int64_t>("time_ns");
  const auto value = table.values<float>("value");
  const auto variable = table.values<int32_t>("variable");
  const auto station = table.values<int32_t>("station");
  const auto& names = table.column("station").names;
  auto corrected = at::empty({table.rows()}, at::kFloat), bias_of = at::empty_like(corrected),
       sd_of = at::empty_like(corrected);
  auto codes = at::empty({table.rows()}, at::kInt);
  float* new_value = corrected.mutable_data_ptr<float>();
  float* biases = bias_of.mutable_data_ptr<float>();
  float* sd = sd_of.mutable_data_ptr<float>();
  int32_t* code = codes.mutable_data_ptr<int32_t>();
  for (std::size_t i = 0; i < time.size(); ++i) {
    const auto* found = find(names[static_cast<std::size_t>(station[i])], variable[i]);
    const double b =
        found && time[i] != kMissingTimeNs ? found->bias[cell(day_parts(time[i]))] : NAN;
    code[i] = static_cast<int32_t>(std::isnan(b) ? Reason::no_bias_statistics : Reason::kept);
    new_value[i] = static_cast<float>(value[i] - b);
    biases[i] = static_cast<float>(b);
    sd[i] = found ? static_cast<float>(std::sqrt(found->variance)) : NAN;
  }
  Applied out;
  out.table = table;
  out.table.set("value", corrected, table.units("value"));
  out.table.set("bias", bias_of, table.units("value"));
  out.table.set("error_sd", sd_of, table.units("error_sd"));
  out.table = out.table.select(codes == 0);
  out.codes = std::move(codes);
  return out;
}

nlohmann::json StationBias::to_json() const {
  auto json =
      nlohmann::json{{"kind", "station_bias"}, {"days", "even days of the year, 1 January being 1"},
                     {"rows", rows_},          {"first_ns", first_},
                     {"last_ns", last_},       {"stations", nlohmann::json::array()}};
  for (const auto& [key, station] : stations_) {
    auto biases = nlohmann::json::array();
    for (const double b : station.bias) biases.push_back(number_or_null(b));
    json["stations"].push_back({{"station", key.first},
                                {"variable", variable(key.second).name},
                                {"error_variance", number_or_null(station.variance)},
                                {"bias_by_month_and_hour", std::move(biases)}});
  }
  return json;
}

StationBias StationBias::from_json(const nlohmann::json& json) {
  try {
    HALCYON_CHECK_KIND(json.at("kind") == "station_bias", input, "StationBias",
                       "expected the kind station_bias");
    StationBias out;
    out.rows_ = json.at("rows").get<int64_t>();
    out.first_ = json.at("first_ns").get<int64_t>();
    out.last_ = json.at("last_ns").get<int64_t>();
    const auto number = [](const nlohmann::json& x) { return x.is_null() ? NAN : x.get<double>(); };
    for (const auto& entry : json.at("stations")) {
      Station station{};
      const auto& biases = entry.at("bias_by_month_and_hour");
      HALCYON_CHECK_KIND(biases.is_array() && biases.size() == station.bias.size(), input,
                         "StationBias", "expected {} biases of a station, got {}",
                         station.bias.size(), biases.size());
      std::transform(biases.begin(), biases.end(), station.bias.begin(), number);
      station.variance = number(entry.at("error_variance"));
      HALCYON_CHECK_KIND(!(station.variance < 0), input, "StationBias",
                         "expected an error variance of at least 0, got {}", station.variance);
      const auto v = variable_number(entry.at("variable").get<std::string>());
      out.stations_[{entry.at("station").get<std::string>(), v}] = station;
    }
    return out;
  } catch (const nlohmann::json::exception& e) {
    throw_error(ErrorKind::input, "StationBias", e.what());
  } catch (const Error& e) {
    throw Error(ErrorKind::input, e.what());
  }
}

}  // namespace halcyon::obs
