// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/gather.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>

#include "halcyon/base/large_pages.h"
#include "halcyon/ops/dispatch.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kAhead = 16;  // rows that are fetched before they are copied

enum class Way { gather, scatter };  // to[i] = from[order[i]], or to[order[i]] = from[i]

// Size: the bytes of a row when they are known at compile time, or 0.
template <int64_t Size, Way way>
void copy_rows(const char* from, const int32_t* order, int64_t rows, int64_t bytes, char* to) {
  const int64_t size = Size > 0 ? Size : bytes;
  constexpr bool kGather = way == Way::gather;
  at::parallel_for(0, rows, 1 << 14, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const char* next = (kGather ? from : to) + order[std::min(row + kAhead, last - 1)] * size;
      for (int64_t byte = 0; byte < size; byte += 64)
        __builtin_prefetch(next + byte, /*for writing=*/!kGather);
      __builtin_prefetch(next + size - 1, !kGather);
      const int64_t other = order[row];
      std::memcpy(to + (kGather ? row : other) * size, from + (kGather ? other : row) * size,
                  static_cast<size_t>(size));
    }
  });
}

template <Way way>
at::Tensor permuted(const at::Tensor& t, const at::Tensor& order) {
  const auto source = t.contiguous();
  auto out = on_large_pages(at::empty(t.sizes(), t.options()));
  const int64_t rows = order.size(0);
  const int64_t bytes = t.dim() == 1 ? t.element_size() : t.size(1) * t.element_size();
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const int32_t* index = order.const_data_ptr<int32_t>();
  if (bytes == 4) {
    copy_rows<4, way>(from, index, rows, bytes, to);
  } else if (bytes == 8) {
    copy_rows<8, way>(from, index, rows, bytes, to);
  } else if (bytes > 0) {
    copy_rows<0, way>(from, index, rows, bytes, to);
  }
  return out;
}

// Each way is the other's transpose, as often as one differentiates.
template <Way way>
struct Permutation : torch::autograd::Function<Permutation<way>> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& t,
                            const at::Tensor& order) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({order});
    return permuted<way>(t, order);
  }
  static variable_list backward(AutogradContext* context, variable_list grad) {
    constexpr auto kBack = way == Way::gather ? Way::scatter : Way::gather;
    return {Permutation<kBack>::apply(grad[0], context->get_saved_variables()[0]), at::Tensor()};
  }
};

}  // namespace

at::Tensor gather_rows(const at::Tensor& t, const at::Tensor& order) {
  if (!t.is_cpu() || needs_composition({t})) return t.index_select(0, order);
  return Permutation<Way::gather>::apply(t, order);
}

}  // namespace halcyon
