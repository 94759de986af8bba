// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Between transposed_product.cpp and the kernels, compiled once for each instruction set.
namespace halcyon::linear_detail {

// Columns of a panel of the right operand, rows of a block of the result, and steps of the depth
// after which sums leave the registers: a panel's part stays in the first-level cache.
inline constexpr int64_t kPanel = 64, kBlockRows = 96, kSteps = 128;

// c rows of width `columns`, for A^T B = C, or added to them, with A (depth, a_row), of which
// `rows` columns count, rows <= kBlockRows, and B as panels (columns / kPanel rounded up, depth,
// kPanel), zeros behind its columns. scratch (kScratch,).
inline constexpr int64_t kScratch = kBlockRows * (kSteps + kPanel);
struct KernelTable {
  void (*transposed_product)(bool add, int64_t rows, int64_t columns, int64_t depth, const float* a,
                             int64_t a_row, const float* panels, float* c, int64_t c_row,
                             float* scratch);
};

KernelTable kernels_default();
KernelTable kernels_avx2();
KernelTable kernels_avx512();

}  // namespace halcyon::linear_detail
