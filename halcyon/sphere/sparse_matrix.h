// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace halcyon {

// Compressed sparse rows: row r holds columns[row_start[r] .. row_start[r+1]).
struct CsrData {
  int64_t rows = 0, columns = 0;
  std::vector<int64_t> row_start;  // rows + 1
  std::vector<int32_t> column;
  std::vector<double> weight;
};

// Columns become rows; within each, entries ascend in what was their row.
CsrData transpose(const CsrData& matrix);

// What apply() does where a field is NaN.
enum class Missing {
  propagate,    // NaN spreads to every output that has a non-zero weight on it
  renormalise,  // the present inputs share the weight; NaN where they hold less than half of it
};

// A fixed linear map between fields on two grids. An output without any input (outside the source
// grid) is NaN. A value: copies share the weights.
class SparseMatrix {
 public:
  // Error(argument) when the arrays do not make a matrix.
  explicit SparseMatrix(CsrData data);

  int64_t rows() const;     // outputs
  int64_t columns() const;  // inputs
  const CsrData& data() const;

  // field (..., columns) -> (..., rows): floating point, on the CPU, any strides; sums are in
  // float64, the result has the field's dtype. Differentiable in field; independent of the number
  // of threads.
  at::Tensor apply(const at::Tensor& field, Missing missing = Missing::propagate) const;
  // The transpose: (..., rows) -> (..., columns), where outputs without inputs add nothing.
  // Differentiable.
  at::Tensor adjoint(const at::Tensor& field) const;

  struct Impl;

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace halcyon
