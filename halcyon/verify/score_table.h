// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/verify/bootstrap.h"

namespace halcyon::verify {

struct ScoreRow {
  std::string protocol, analyser;
  std::string metric = "RMSE", units;
  Estimate score;
  std::string reference;               // empty for the reference itself
  std::optional<Estimate> difference;  // score minus the reference's, on the same days
  double confidence = 0.95;
  int64_t times = 0, stations = 0;  // analyses scored, stations that reported
  double seconds = 0;               // wall time that the analyser took
};

struct ScoreTable {
  std::vector<ScoreRow> rows;

  // Error(input) with the rows that are there.
  const ScoreRow& at(const std::string& protocol, const std::string& analyser) const;
  void append(const ScoreTable& other);

  // One protocol after the other, in columns that line up.
  std::string text() const;
  std::string json() const;
  std::string csv() const;
  // By the extension: .json, .csv, else text. Atomic; Error(output).
  void save(const std::filesystem::path& path) const;
};

// A table that save() wrote as CSV. Error(input) with file and line.
ScoreTable read_score_table(const std::filesystem::path& csv);

}  // namespace halcyon::verify
