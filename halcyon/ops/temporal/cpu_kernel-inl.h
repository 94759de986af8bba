// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/simd-inl.h"
#include "halcyon/ops/temporal/cpu_kernel.h"

#include "halcyon/ops/hidden-inl.h"
#include "halcyon/ops/temporal/cpu_rows-inl.h"

#include "halcyon/ops/temporal/cpu_pairs-inl.h"
#include "halcyon/ops/temporal/cpu_states-inl.h"

#include "halcyon/ops/temporal/cpu_blocks-inl.h"

namespace halcyon::temporal_detail {
namespace {

// One item's place in an operand.
struct Item {
  int64_t batch, pixel, channel;
};
template <class S>
inline Pixel<S> at(const Frames<S>& f, const Item& i) {
  return {f.data + i.batch * f.batch + i.pixel * f.pixel + i.channel, f.frame};
}

// f(work, item) for each of [first, last).
template <class S, class T, class F>
void each_item(const Problem<T>& p, int64_t first, int64_t last, T* scratch, const F& f) {
  if (p.form == Form::pairs) {
    Pairs<S, T> work(p, scratch);
    for (int64_t n = first; n < last; ++n) f(work, Item{n / p.pixels, n % p.pixels, 0});
  } else {
    Blocks<S, T> work(p, scratch);
    for (int64_t n = first; n < last; ++n) {
      const int64_t pixel = n / p.heads;
      f(work, Item{pixel / p.pixels, pixel % p.pixels, n % p.heads * p.head_dim});
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
    each_item<S>(p, first, last, scratch, [&](auto& work, const Item& i) {
      work.forward(at(q, i), at(k, i), at(v, i), at(out, i));
    });
  };
  kernel.backward = [](P p, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                       Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k,
                       Frames<S> grad_v, int64_t first, int64_t last, T* scratch) {
    each_item<S>(p, first, last, scratch, [&](auto& work, const Item& i) {
      work.backward(at(q, i), at(k, i), at(v, i), at(grad_out, i), at(grad_q, i), at(grad_k, i),
                    at(grad_v, i));
    });
  };
  return kernel;
}

KernelTable make_kernels() {
  return {make_kernel<float, float>(), make_kernel<Bf16, float>(), make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::temporal_detail
