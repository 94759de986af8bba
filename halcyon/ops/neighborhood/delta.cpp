// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>

#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/kernels.h"

namespace halcyon::neighborhood {

at::Tensor delta_of(const Output& forward, const at::Tensor& grad_out, const at::Tensor& grad_lse) {
  const auto type = forward.lse.scalar_type();
  if (!grad_out.is_cpu()) {
    const auto delta = (grad_out.to(type) * forward.out.to(type)).sum(-1);
    return grad_lse.defined() ? delta - grad_lse : delta;
  }
  // torch's sum may add in another order on another number of threads
  auto delta = at::empty(forward.lse.sizes(), forward.lse.options());
  with_kernels(
      forward.out.scalar_type(), cpu_level(), [&]<class S, class T>(const Kernels<S, T>& kernels) {
        const auto out = readable<S>(forward.out).contiguous(),
                   grad = readable<S>(grad_out).contiguous();
        const int64_t depth = out.size(-1);
        const auto *a = static_cast<const S*>(out.const_data_ptr()),
                   *b = static_cast<const S*>(grad.const_data_ptr());
        T* to = delta.template mutable_data_ptr<T>();
        at::parallel_for(0, delta.numel(), 512, [&](int64_t first, int64_t last) {
          kernels.mover.dots(last - first, depth, a + first * depth, b + first * depth, to + first);
        });
      });
  return grad_lse.defined() ? delta.sub_(grad_lse) : delta;
}

}  // namespace halcyon::neighborhood
