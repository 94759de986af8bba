// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/summary.h"

#include <ATen/ATen.h>

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "halcyon/base/text.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

using nlohmann::ordered_json;
constexpr int64_t kNsPerSecond = 1'000'000'000;

struct Statistics {
  int64_t rows = 0, finite = 0;  // minimum, mean and maximum are over the finite values
  double sum = 0, least = INFINITY, most = -INFINITY;
};

// West and east of the narrowest arc that holds all longitudes.
std::pair<double, double> arc(std::vector<double> lon) {
  const auto wrapped = [](double x) { return x < -180 ? x + 360 : x >= 180 ? x - 360 : x; };
  for (auto& x : lon) x = wrapped(x);
  std::sort(lon.begin(), lon.end());
  double gap = lon.front() + 360 - lon.back();
  std::pair<double, double> ends{lon.front(), lon.back()};
  for (std::size_t i = 1; i < lon.size(); ++i) {
    if (lon[i] - lon[i - 1] <= gap) continue;
    gap = lon[i] - lon[i - 1];
    ends = {lon[i], lon[i - 1]};
  }
  return ends;
}

ordered_json box_of(const Table& table) {
  std::vector<double> lat, lon;
  const auto y = table.values<double>("lat"), x = table.values<double>("lon");
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!(std::abs(y[i]) <= 90 && std::abs(x[i]) <= 360)) continue;
    lat.push_back(y[i]);
    lon.push_back(x[i]);
  }
  if (lat.empty()) return nullptr;
  const auto [south, north] = std::minmax_element(lat.begin(), lat.end());
  const auto [west, east] = arc(std::move(lon));
  return {{"west", west}, {"east", east}, {"south", *south}, {"north", *north}};
}

ordered_json times_of(const Table& table) {
  int64_t first = std::numeric_limits<int64_t>::max(), last = kMissingTimeNs;
  for (const int64_t t : table.values<int64_t>("time_ns")) {
    if (t == kMissingTimeNs) continue;
    first = std::min(first, t);
    last = std::max(last, t);
  }
  if (last == kMissingTimeNs) return nullptr;
  return {{"first", format_time(first / kNsPerSecond)}, {"last", format_time(last / kNsPerSecond)}};
}

ordered_json variables_of(const Content& content) {
  std::map<int32_t, Statistics> by_number;
  for (const auto& [name, count] : content.missing) by_number[variable_number(name)];
  const auto number = content.table.values<int32_t>("variable");
  const auto value = content.table.values<float>("value");
  for (std::size_t i = 0; i < number.size(); ++i) {
    auto& s = by_number[number[i]];
    ++s.rows;
    if (!std::isfinite(value[i])) continue;
    ++s.finite;
    s.sum += value[i];
    s.least = std::min<double>(s.least, value[i]);
    s.most = std::max<double>(s.most, value[i]);
  }
  auto all = ordered_json::array();
  for (const auto& [n, s] : by_number) {
    const bool known = n >= 0 && n < static_cast<int32_t>(variables().size());
    const auto name = known ? variable(n).name : std::string_view("unknown");
    const auto missing = content.missing.find(std::string(name));
    ordered_json entry{{"name", name},
                       {"units", known ? variable(n).units : std::string_view("?")},
                       {"rows", s.rows},
                       {"missing", missing == content.missing.end() ? 0 : missing->second}};
    if (s.finite > 0) {
      entry["min"] = s.least;
      entry["mean"] = s.sum / static_cast<double>(s.finite);
      entry["max"] = s.most;
    }
    all.push_back(std::move(entry));
  }
  return all;
}

}  // namespace

ordered_json summary(const std::filesystem::path& path, const Content& content,
                     const SurfaceRules& rules) {
  const auto& table = content.table;
  const auto codes = quality_control(table, rules);
  const auto counts = count_reasons(codes);
  auto reasons = ordered_json::object();
  for (std::size_t r = 0; r < counts.size(); ++r) {
    if (counts[r] > 0) reasons[std::string(qc_reasons()[r])] = counts[r];
  }
  std::vector<bool> seen(table.column("station").names.size());
  for (const int32_t s : table.values<int32_t>("station")) seen[static_cast<std::size_t>(s)] = true;
  return {{"file", printable(path.native())},
          {"format", content.format},
          {"rows", table.rows()},
          {"stations", std::count(seen.begin(), seen.end(), true)},
          {"time", times_of(table)},
          {"box", box_of(table)},
          {"variables", variables_of(content)},
          {"quality_control", reasons},
          {"quality_control_table", table.empty() ? "" : reason_table(table, codes)}};
}

std::string summary_text(const ordered_json& s) {
  std::string text = fmt::format("{}\n  format    {}\n  rows      {} of {} stations\n",
                                 s["file"].get<std::string>(), s["format"].get<std::string>(),
                                 s["rows"].get<int64_t>(), s["stations"].get<int64_t>());
  if (!s["time"].is_null())
    text += fmt::format("  time      {} to {}\n", s["time"]["first"].get<std::string>(),
                        s["time"]["last"].get<std::string>());
  if (!s["box"].is_null())
    text += fmt::format("  box       {:.2f} to {:.2f} east, {:.2f} to {:.2f} north\n",
                        s["box"]["west"].get<double>(), s["box"]["east"].get<double>(),
                        s["box"]["south"].get<double>(), s["box"]["north"].get<double>());
  text += fmt::format("\n  {:<10}{:<8}{:>10}{:>10}{:>12}{:>12}{:>12}\n", "variable", "units",
                      "rows", "missing", "min", "mean", "max");
  for (const auto& v : s["variables"]) {
    text += fmt::format("  {:<10}{:<8}{:>10}{:>10}", v["name"].get<std::string>(),
                        v["units"].get<std::string>(), v["rows"].get<int64_t>(),
                        v["missing"].get<int64_t>());
    for (const char* key : {"min", "mean", "max"})
      text += v.contains(key) ? fmt::format("{:>12.2f}", v[key].get<double>())
                              : fmt::format("{:>12}", "-");
    text += '\n';
  }
  text += "\n  quality control: rows by reason\n";
  const auto table = s["quality_control_table"].get<std::string>();
  for (std::size_t at = 0; at < table.size();) {
    const auto end = table.find('\n', at);
    text += "  " + table.substr(at, end - at) + '\n';
    at = end + 1;
  }
  return text;
}

}  // namespace halcyon::obs
