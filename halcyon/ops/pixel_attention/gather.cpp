// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/gather.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>

namespace halcyon {
namespace {

constexpr int64_t kAhead = 16;  // rows that are fetched before they are copied

// Size: the bytes of a row when they are known at compile time, or 0.
template <int64_t Size>
void copy_rows(const char* from, const int32_t* order, int64_t rows, int64_t bytes, char* to) {
  const int64_t size = Size > 0 ? Size : bytes;
  at::parallel_for(0, rows, 1 << 14, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const char* next = from + order[std::min(row + kAhead, last - 1)] * size;
      for (int64_t byte = 0; byte < size; byte += 64) __builtin_prefetch(next + byte);
      std::memcpy(to + row * size, from + order[row] * size, static_cast<size_t>(size));
    }
  });
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& t, const at::Tensor& order) {
  const bool differentiable = at::GradMode::is_enabled() && t.requires_grad();
  if (!t.is_cpu() || differentiable) return t.index_select(0, order);
  const auto source = t.contiguous();
  auto shape = t.sizes().vec();
  shape[0] = order.size(0);
  auto out = at::empty(shape, t.options());
  const int64_t bytes = t.dim() == 1 ? t.element_size() : t.size(1) * t.element_size();
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const int32_t* index = order.const_data_ptr<int32_t>();
  if (bytes == 4) {
    copy_rows<4>(from, index, order.size(0), bytes, to);
  } else if (bytes == 8) {
    copy_rows<8>(from, index, order.size(0), bytes, to);
  } else if (bytes > 0) {
    copy_rows<0>(from, index, order.size(0), bytes, to);
  }
  return out;
}

}  // namespace halcyon
