// SPDX-License-Identifier: Apache-2.0
// A^T B of two tall matrices, as a weight's gradient is: oneDNN copies both transposed first. Here
// the wider is read as it lies, a block of columns at a time, and only the narrower is laid out
// anew, in panels.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ceil_div.h>

#include <algorithm>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/dense_rows.h"
#include "halcyon/ops/linear/cpu_kernel.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon::linear_detail {
namespace {

// Of the depth at a time: its panels stay in the caches.
constexpr int64_t kDepth = 2048;

// b (depth, columns) as panels; the last one's columns beyond b's stay as they are.
void lay_out(const at::Tensor& b, float* panels) {
  const int64_t depth = b.size(0), columns = b.size(1), row = b.stride(0);
  const float* const from = b.const_data_ptr<float>();
  at::parallel_for(0, depth, kSteps, [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < columns; first += kPanel) {
      const int64_t width = std::min(kPanel, columns - first);
      for (int64_t k = begin; k < end; ++k)
        std::copy_n(from + k * row + first, width, panels + first * depth + k * kPanel);
    }
  });
}

}  // namespace

at::Tensor transposed_product(const at::Tensor& left, const at::Tensor& right, CpuLevel level) {
  if (left.size(1) < right.size(1)) return transposed_product(right, left, level).t().contiguous();
  const auto kernel =
      at_level(level, kernels_default, kernels_avx2, kernels_avx512)().transposed_product;
  const auto a = with_dense_rows(left), b = with_dense_rows(right);
  const int64_t depth = a.size(0), rows = a.size(1), columns = b.size(1);
  auto c = at::empty({rows, columns}, a.options());
  if (c.numel() == 0 || depth == 0) return c.zero_();
  const auto panels =
      at::zeros({at::ceil_div(columns, kPanel), std::min(depth, kDepth), kPanel}, b.options());
  // As many blocks for each thread; a sum does not depend on the block that it is in.
  const int64_t threads = at::get_num_threads(),
                blocks = at::round_up(at::ceil_div(rows, kBlockRows), threads);
  constexpr int64_t kTile = 6;  // rows that the kernel keeps in registers
  const int64_t height = at::round_up(at::ceil_div(rows, blocks), kTile);
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t steps = std::min(kDepth, depth - k);
    lay_out(b.narrow(0, k, steps), panels.mutable_data_ptr<float>());
    at::parallel_for(0, at::ceil_div(rows, height), 1, [&](int64_t begin, int64_t end) {
      const auto scratch = at::empty({kScratch}, a.options());
      for (int64_t i = begin * height; i < std::min(rows, end * height); i += height)
        kernel(/*add=*/k > 0, std::min(height, rows - i), columns, steps,
               a.const_data_ptr<float>() + k * a.stride(0) + i, a.stride(0),
               panels.const_data_ptr<float>(), c.mutable_data_ptr<float>() + i * columns, columns,
               scratch.mutable_data_ptr<float>());
    });
  }
  return c;
}

}  // namespace halcyon::linear_detail
