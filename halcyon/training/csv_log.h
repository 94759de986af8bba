// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace halcyon::training {

// A CSV file whose first column is the step. Numbers read back to the same bits.
class CsvLog {
 public:
  // Keeps the rows of steps up to last_step of a file that is there already and cuts off the rest,
  // a half-written row too. Throws Error(input) when its columns are others, Error(output) when it
  // cannot be written.
  CsvLog(const std::filesystem::path& path, const std::vector<std::string>& columns,
         int64_t last_step);
  ~CsvLog();
  CsvLog(const CsvLog&) = delete;
  CsvLog& operator=(const CsvLog&) = delete;

  void row(int64_t step, const std::vector<double>& values);
  // To disk: before a checkpoint that relies on the rows.
  void flush();

 private:
  void fail() const;

  std::filesystem::path path_;
  std::size_t columns_;
  int file_ = -1;
};

}  // namespace halcyon::training
