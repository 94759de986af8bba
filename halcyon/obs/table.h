// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace halcyon::obs {

// Observations, one row a datum (one value of one variable at one place and time), in named columns
// of equal length. The columns that readers make:
//
//   time_ns        int64    nanoseconds since 1970-01-01; kMissingTimeNs: the file has none
//   lat, lon       float64  degrees               lon as the file has it, -180..360; NaN: missing
//   value          float32  by variable           units: variables.h
//   variable       int32    1                     number in variables.h
//   platform       int32    1                     number in variables.h
//   height         float32  m                     of the station; NaN: unknown
//   pressure       float32  hPa                   of the datum; NaN: does not apply
//   error_sd       float32  as value              NaN: unknown
//   provider_flag  int32    1                     ProviderFlag in variables.h
//   station        text                           identifier as the file has it
//
// Further ones: qc (int32, reason codes, quality_control.h), bias (float32, as value; bias.h),
// normalised (float32, 1; packing.h), sensor (int32), scan_angle, sat_zenith_angle,
// sol_zenith_angle (float32, degrees) of satellite data.
//
// A value: copies share the tensors, which are never changed in place. CPU, contiguous, rank 1.
class Table {
 public:
  struct Column {
    at::Tensor data;
    std::string units;  // "1" where there are none, empty for text
    // Of a text column, data holds int32 numbers into these.
    std::vector<std::string> names;
    bool text = false;
  };

  int64_t rows() const { return rows_; }
  bool empty() const { return rows_ == 0; }
  bool has(std::string_view name) const;
  const std::map<std::string, Column, std::less<>>& columns() const { return columns_; }

  // Error(argument) with the names that exist when there is no such column.
  const Column& column(std::string_view name) const;
  const at::Tensor& operator[](std::string_view name) const { return column(name).data; }
  const std::string& units(std::string_view name) const { return column(name).units; }
  // The column's elements; Error(argument) unless it has the dtype of T.
  template <typename T>
  std::span<const T> values(std::string_view name) const;
  // The text of one row.
  const std::string& text(std::string_view name, int64_t row) const;

  // Adds or replaces a column: rank 1 and as long as the others (the first one decides). bool,
  // integer or floating; moved to the CPU.
  void set(const std::string& name, const at::Tensor& data, const std::string& units = "1");
  void set_text(const std::string& name, const std::vector<std::string>& values);
  // codes: integers in [0, names.size()).
  void set_text(const std::string& name, const at::Tensor& codes, std::vector<std::string> names);
  void drop(std::string_view name);

  // The rows of a mask (bool (rows,)) or an index (int64 (n,), each in [0, rows)), in that order.
  Table select(const at::Tensor& mask_or_index) const;
  // Adds the rows of another table with the same columns, dtypes and units.
  void append(const Table& other) { *this = concat({*this, other}); }
  // Tables without any column are left out.
  static Table concat(const std::vector<Table>& tables);
  // Ascending by the first column named, ties by the next ones; stable. Text sorts by its text, NaN
  // last.
  Table sorted(const std::vector<std::string>& by) const;

 private:
  std::map<std::string, Column, std::less<>> columns_;
  int64_t rows_ = 0;
};

inline constexpr int64_t kMissingTimeNs = std::numeric_limits<int64_t>::min();

// A table with the columns of every reader; value, lat, lon and time_ns as given and the rest
// unknown. For tests and for building tables by hand.
Table make_table(const at::Tensor& time_ns, const at::Tensor& lat, const at::Tensor& lon,
                 const at::Tensor& value, int32_t variable);

// Throws Error(argument) unless the table has the columns of every reader with their dtypes.
void check_observations(const Table& table, std::string_view operation);

}  // namespace halcyon::obs
