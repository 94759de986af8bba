// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set: see simd-inl.h for what may stand here.
#include "halcyon/ops/attention/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"
// before what stands on them
#include "halcyon/ops/hidden-inl.h"

#include "halcyon/ops/attention/cpu_pack-inl.h"
#include "halcyon/ops/attention/cpu_scores-inl.h"
// the kernels
#include "halcyon/ops/attention/cpu_backward-inl.h"
#include "halcyon/ops/attention/cpu_forward-inl.h"

namespace halcyon::attention_detail {
namespace {

// U: the elements of the products.
template <class S, class U>
constexpr Kernels<S, Sum<U>> make() {
  using T = Sum<U>;
  using P = const Problem<T>&;
  Kernels<S, T> k;
  k.padded_width = [](int64_t width) { return padded<T>(width); };
  k.forward_scratch = [](P p) { return Forward<S, U>::scratch_size(p); };
  k.pack = [](P p, Rows<const S> key, Rows<const S> value, T* scratch) {
    Forward<S, U>(p, scratch).pack(key, value);
  };
  k.attend = [](P p, int64_t first, int64_t count, Rows<const S> query, Rows<S> out, Rows<T> lse,
                T* scratch) { Forward<S, U>(p, scratch).attend(first, count, query, out, lse); };
  k.backward_scratch = [](P p, int64_t keys) { return Backward<S, U>::scratch_size(p, keys); };
  k.backward = [](P p, const Share<S, T>& share, T* scratch) {
    Backward<S, U>(p, share.keys, scratch).run(share);
  };
  k.finish_queries = finish_queries<S, U>;
  return k;
}

}  // namespace
}  // namespace halcyon::attention_detail
