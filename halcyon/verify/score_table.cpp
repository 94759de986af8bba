// SPDX-License-Identifier: Apache-2.0
#include "halcyon/verify/score_table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/text.h"

namespace halcyon::verify {
namespace {

nlohmann::ordered_json json_of(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

}  // namespace

const ScoreRow& ScoreTable::at(const std::string& protocol, const std::string& analyser) const {
  std::string names;
  for (const auto& row : rows) {
    if (row.protocol == protocol && row.analyser == analyser) return row;
    names += fmt::format("{}{} / {}", names.empty() ? "" : ", ", row.protocol, row.analyser);
  }
  throw_error(ErrorKind::input, "ScoreTable",
              fmt::format("expected {} / {}, got only: {}", protocol, analyser, names));
}

void ScoreTable::append(const ScoreTable& other) {
  rows.insert(rows.end(), other.rows.begin(), other.rows.end());
}

std::string ScoreTable::text() const {
  std::size_t width = 8;
  for (const auto& row : rows) width = std::max(width, row.analyser.size());
  std::string out, protocol;
  for (const auto& row : rows) {
    if (row.protocol != protocol) {
      protocol = row.protocol;
      out += fmt::format("{}{} ({} analyses, {} stations), {} in {}\n", out.empty() ? "" : "\n",
                         protocol, row.times, row.stations, row.metric, row.units);
      out += fmt::format("  {:<{}}  {:>6}  {:>14}  {:>8}  {:>16}  {:>8}\n", "analyser", width,
                         row.metric, fmt::format("{:g} % interval", 100 * row.confidence), "gain",
                         "interval of gain", "seconds");
    }
    out += fmt::format("  {:<{}}  {:>6.2f}  {:>14}", row.analyser, width, row.score.value,
                       fmt::format("{:.2f} .. {:.2f}", row.score.low, row.score.high));
    if (row.difference) {
      // a gain is positive: how much smaller the error is than the reference's
      const Estimate& d = *row.difference;
      out += fmt::format("  {:>+8.2f}  {:>16}", -d.value,
                         fmt::format("{:+.2f} .. {:+.2f}", -d.high, -d.low));
    } else {
      out += fmt::format("  {:>8}  {:>16}", "-", "-");
    }
    out += fmt::format("  {:>8.1f}\n", row.seconds);
  }
  return out;
}

std::string ScoreTable::json() const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& row : rows) {
    nlohmann::ordered_json one = {
        {"protocol", row.protocol}, {"analyser", row.analyser},    {"metric", row.metric},
        {"units", row.units},       {"score", json_of(row.score)}, {"confidence", row.confidence},
        {"times", row.times},       {"stations", row.stations},    {"seconds", row.seconds}};
    if (row.difference) {
      one["reference"] = row.reference;
      one["difference"] = json_of(*row.difference);
    }
    list.push_back(one);
  }
  return json_text(list, 2) + "\n";
}

std::string ScoreTable::csv() const {
  std::string out =
      "protocol,analyser,metric,units,value,low,high,reference,difference,difference_low,"
      "difference_high,confidence,times,stations,seconds\n";
  for (const auto& row : rows) {
    out += fmt::format("{},{},{},{},{:.6g},{:.6g},{:.6g},", csv_field(row.protocol),
                       csv_field(row.analyser), csv_field(row.metric), csv_field(row.units),
                       row.score.value, row.score.low, row.score.high);
    out += row.difference
               ? fmt::format("{},{:.6g},{:.6g},{:.6g}", csv_field(row.reference),
                             row.difference->value, row.difference->low, row.difference->high)
               : std::string(",,,");
    out +=
        fmt::format(",{:g},{},{},{:.3f}\n", row.confidence, row.times, row.stations, row.seconds);
  }
  return out;
}

void ScoreTable::save(const std::filesystem::path& path) const {
  const auto extension = path.extension();
  write_text(path, extension == ".json" ? json() : extension == ".csv" ? csv() : text());
}

ScoreTable read_score_table(const std::filesystem::path& csv) {
  const Csv file = read_csv(csv);
  ScoreTable table;
  for (std::size_t line = 0; line < file.rows.size(); ++line) {
    const auto text = [&](const char* name) { return file.rows[line][file.column(name)]; };
    const auto number = [&](const char* name) { return file.number(line, file.column(name)); };
    ScoreRow row;
    row.protocol = text("protocol");
    row.analyser = text("analyser");
    row.metric = text("metric");
    row.units = text("units");
    row.score = {number("value"), number("low"), number("high")};
    row.reference = text("reference");
    if (!row.reference.empty())
      row.difference =
          Estimate{number("difference"), number("difference_low"), number("difference_high")};
    const auto count = [&](const char* name) {
      const double value = number(name);
      HALCYON_CHECK_KIND(value >= 0 && value < 1e15, input, "read_score_table",
                         "{}: expected a count in {}, got {}", file.where(line), name, value);
      return static_cast<int64_t>(value);
    };
    row.confidence = number("confidence");
    row.times = count("times");
    row.stations = count("stations");
    row.seconds = number("seconds");
    table.rows.push_back(std::move(row));
  }
  HALCYON_CHECK_KIND(!table.rows.empty(), input, "read_score_table", "{}: expected rows of scores",
                     csv.string());
  return table;
}

}  // namespace halcyon::verify
