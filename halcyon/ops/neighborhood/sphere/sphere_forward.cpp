// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "halcyon/base/large_pages.h"
#include "halcyon/ops/neighborhood/sphere/sphere_call.h"

namespace halcyon::neighborhood {
namespace {

template <class S, class T>
void run(const SphereInputs& in, const Kernels<S, T>& kernels, const at::Tensor& out,
         const at::Tensor& lse) {
  const auto query = readable<S>(in.query), key = readable<S>(in.key),
             value = readable<S>(in.value);
  const Pixels<S> q(query), k(key), v(value), o(out);
  const Pixels<T> l(lse.unsqueeze(-1));
  const int64_t groups = key.size(2), per_group = query.size(2) / groups;
  const int64_t blocks = in.lists->blocks(), d = q.channels;
  const int lanes = kernels.kernel.lanes;
  const int64_t dp = padded(k.channels, lanes), ep = padded(v.channels, lanes);
  const bool finite = all_finite(value);
  at::parallel_for(0, query.size(0) * groups * blocks, 1, [&](int64_t first, int64_t last) {
    Scratch<T> scratch;
    T *rows_k = scratch(0, kMaxSources * dp), *rows_v = scratch(1, kMaxSources * ep);
    T *lanes_q = scratch(2, per_group * d * kBlock), *sums = scratch(3, per_group * ep * kBlock);
    T *max = scratch(4, per_group * kBlock), *sum = scratch(5, per_group * kBlock);
    T* s = scratch(6, kMaxSources * kBlock);
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / blocks / groups, group = i / blocks % groups;
      const BlockList list(*in.lists, i % blocks);
      for (int64_t h = 0; h < per_group; ++h)
        pack_block(kernels.mover, q, b, group * per_group + h, list, static_cast<T>(in.scale),
                   lanes_q + h * d * kBlock);
      std::fill_n(sums, per_group * ep * kBlock, T(0));
      std::fill_n(sum, per_group * kBlock, T(0));
      std::fill_n(max, per_group * kBlock, -std::numeric_limits<T>::infinity());
      list.each_piece([&](const int32_t* token, const uint16_t* bits, int64_t n) {
        gather_rows(kernels.mover, k, b, group, token, n, T(1), rows_k, dp);
        gather_rows(kernels.mover, v, b, group, token, n, T(1), rows_v, ep);
        for (int64_t h = 0; h < per_group; ++h) {
          kernels.list.scores(n, d, dp, rows_k, lanes_q + h * d * kBlock, bits, s);
          kernels.list.soften(n, ep, s, max + h * kBlock, sum + h * kBlock, sums + h * ep * kBlock);
          weigh_rows(kernels.list, finite, n, ep, s, rows_v, bits, sums + h * ep * kBlock, scratch);
        }
      });
      const auto at = list.offsets(l);
      for (int64_t h = 0; h < per_group; ++h) {
        const int64_t head = group * per_group + h;
        for (int64_t lane = 0; lane < list.size(); ++lane) {
          T& total = sum[h * kBlock + lane];
          l.at(b, head)[at[static_cast<std::size_t>(lane)]] =
              max[h * kBlock + lane] + std::log(total);
          total = 1 / total;
        }
        write_block(kernels.mover, o, b, head, list, sums + h * ep * kBlock, ep, sum + h * kBlock);
      }
    }
  });
}

}  // namespace

Output sphere_forward(const SphereInputs& in, CpuLevel level) {
  auto shape = in.query.sizes().vec();
  shape.back() = in.value.size(-1);
  Output output;
  with_kernels(in.query.scalar_type(), level, [&]<class S, class T>(const Kernels<S, T>& kernels) {
    const auto stored = readable<S>(in.query).scalar_type();
    output.out = on_large_pages(at::empty(shape, in.query.options().dtype(stored)));
    output.lse = at::empty(at::IntArrayRef(shape).slice(0, 3),
                           in.query.options().dtype(c10::CppTypeToScalarType<T>::value));
    run(in, kernels, output.out, output.lse);
  });
  return {output.out.to(in.query.scalar_type()), output.lse};
}

}  // namespace halcyon::neighborhood
