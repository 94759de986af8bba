// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include "halcyon/sphere/sparse_matrix.h"

namespace halcyon::detail {

// Fills a matrix row by row.
class CsrBuilder {
 public:
  explicit CsrBuilder(int64_t columns) {
    data_.columns = columns;
    data_.row_start.push_back(0);
  }

  // Zero weights are left out: a NaN under one must not spread.
  void add(int64_t column, double weight) {
    if (weight == 0) return;
    data_.column.push_back(static_cast<int32_t>(column));
    data_.weight.push_back(weight);
  }

  void end_row() {
    data_.row_start.push_back(static_cast<int64_t>(data_.column.size()));
    ++data_.rows;
  }

  // The rows of another builder with the same columns, after these.
  void append(const CsrBuilder& next) {
    const int64_t before = data_.row_start.back();
    for (int64_t r = 1; r <= next.data_.rows; ++r) {
      data_.row_start.push_back(before + next.data_.row_start[r]);
    }
    data_.rows += next.data_.rows;
    data_.column.insert(data_.column.end(), next.data_.column.begin(), next.data_.column.end());
    data_.weight.insert(data_.weight.end(), next.data_.weight.begin(), next.data_.weight.end());
  }

  CsrData finish() && { return std::move(data_); }

 private:
  CsrData data_;
};

}  // namespace halcyon::detail
