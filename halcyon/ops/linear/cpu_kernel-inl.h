// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set: see simd-inl.h for what may stand here.
#include "halcyon/ops/linear/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::linear_detail {
namespace {

void transposed_product(bool add, int64_t rows, int64_t columns, int64_t depth, const float* a,
                        int64_t a_row, const float* panels, float* c, int64_t c_row,
                        float* scratch) {
  float *const block = scratch, *const edge = scratch + kBlockRows * kSteps;
  const int64_t whole = columns / kPanel, left = columns - whole * kPanel;
  const auto rest = [&](int64_t i) { return c + i * c_row + whole * kPanel; };
  for (int64_t i = 0; add && i < rows; ++i)
    for (int64_t j = 0; j < left; ++j) edge[i * kPanel + j] = rest(i)[j];
  for (int64_t k = 0; k < depth; k += kSteps) {
    const int64_t steps = depth - k < kSteps ? depth - k : kSteps;
    for (int64_t i = 0; i < steps; ++i)
      __builtin_memcpy(block + i * rows, a + (k + i) * a_row,
                       static_cast<std::size_t>(rows) * sizeof(float));
    for (int64_t p = 0; p * kPanel < columns; ++p) {
      const float* const panel = panels + (p * depth + k) * kPanel;
      float* const to = p < whole ? c + p * kPanel : edge;
      const int64_t to_row = p < whole ? c_row : kPanel;
      if (k == 0 && !add) {
        product<float, false>(rows, kPanel, steps, block, 1, rows, panel, kPanel, to, to_row);
      } else {
        product<float, true>(rows, kPanel, steps, block, 1, rows, panel, kPanel, to, to_row);
      }
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < left; ++j) rest(i)[j] = edge[i * kPanel + j];
}

KernelTable make_kernels() {
  return {transposed_product};
}

}  // namespace
}  // namespace halcyon::linear_detail
