// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/simd-inl.h"
#include "halcyon/ops/temporal/cpu_kernel.h"

#include "halcyon/ops/temporal/cpu_rows-inl.h"

#include "halcyon/ops/temporal/cpu_pairs-inl.h"
#include "halcyon/ops/temporal/cpu_states-inl.h"

#include "halcyon/ops/temporal/cpu_blocks-inl.h"

namespace halcyon::temporal_detail {
namespace {

template <class S>
inline S* at(const Frames<S>& f, int64_t b, int64_t x, int64_t channel) {
  return f.data + b * f.batch + x * f.pixel + channel;
}

// f(work, batch, pixel, first channel) for each item of [first, last).
template <class S, class T, class F>
void each_item(const Problem<T>& p, int64_t first, int64_t last, T* scratch, const F& f) {
  if (p.form == Form::pairs) {
    Pairs<S, T> work(p, scratch);
    for (int64_t n = first; n < last; ++n) f(work, n / p.pixels, n % p.pixels, 0);
  } else {
    Blocks<S, T> work(p, scratch);
    for (int64_t n = first; n < last; ++n) {
      const int64_t pixel = n / p.heads;
      f(work, pixel / p.pixels, pixel % p.pixels, n % p.heads * p.head_dim);
    }
  }
}

template <class S, class T>
Kernel<S, T> make_kernel() {
  using P = const Problem<T>&;
  Kernel<S, T> kernel;
  kernel.scratch_size = [](P p) {
    return p.form == Form::pairs ? Pairs<S, T>(p, nullptr).used() : Blocks<S, T>(p, nullptr).used();
  };
  kernel.forward = [](P p, Frames<const S> q, Frames<const S> k, Frames<const S> v, Frames<S> out,
                      int64_t first, int64_t last, T* scratch) {
    each_item<S>(p, first, last, scratch, [&](auto& work, int64_t b, int64_t x, int64_t c) {
      work.forward(at(q, b, x, c), q.frame, at(k, b, x, c), k.frame, at(v, b, x, c), v.frame,
                   at(out, b, x, c), out.frame);
    });
  };
  kernel.backward = [](P p, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                       Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k,
                       Frames<S> grad_v, int64_t first, int64_t last, T* scratch) {
    each_item<S>(p, first, last, scratch, [&](auto& work, int64_t b, int64_t x, int64_t c) {
      work.backward(at(q, b, x, c), q.frame, at(k, b, x, c), k.frame, at(v, b, x, c), v.frame,
                    at(grad_out, b, x, c), grad_out.frame, at(grad_q, b, x, c), grad_q.frame,
                    at(grad_k, b, x, c), grad_k.frame, at(grad_v, b, x, c), grad_v.frame);
    });
  };
  return kernel;
}

KernelTable make_kernels() {
  return {make_kernel<float, float>(), make_kernel<Bf16, float>(), make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::temporal_detail
