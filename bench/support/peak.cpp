// SPDX-License-Identifier: Apache-2.0
#include "bench/support/peak.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "bench/support/sampling.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon::bench {
namespace {

constexpr int kTries = 4;

// The best of several sizes and of both libraries: which one a library likes most is its own
// affair.
double matrix_product(at::ScalarType type) {
  double best = 0;
  for (const int64_t n : {512, 1024, 2048, 3072}) {
    const auto a = at::randn({n, n}).to(type), b = at::randn({n, n}).to(type);
    auto c = at::empty({n, n}, a.options());
    const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(n * n);
    for (int i = 0; i < kTries; ++i) {
      best = std::max(best, flops / seconds_of([&] { at::mm_out(c, a, b); }));
      if (!linear_detail::has_onednn()) continue;
      const auto onednn = [&] {  // it has no form that writes into what there is
        linear_detail::forward(a, b, {}, Activation::none, linear_detail::Library::onednn);
      };
      best = std::max(best, flops / seconds_of(onednn));
    }
  }
  return best;
}

double triad() {
  constexpr int64_t kSize = int64_t{1} << 27;  // 512 MiB an array: larger than any cache
  const auto b = at::ones({kSize}), c = at::ones({kSize});
  auto a = at::zeros({kSize});
  const float *from = b.const_data_ptr<float>(), *also = c.const_data_ptr<float>();
  float* to = a.mutable_data_ptr<float>();
  const auto run = [&] {
    at::parallel_for(0, kSize, 1 << 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) to[i] = from[i] + 3.f * also[i];
    });
  };
  double best = 0;
  for (int i = 0; i < kTries; ++i)
    best = std::max(best, 3 * sizeof(float) * kSize / seconds_of(run));
  return best;
}

}  // namespace

const Peak& machine_peak() {
  static const Peak peak{matrix_product(at::kFloat), matrix_product(at::kBFloat16), triad()};
  return peak;
}

}  // namespace halcyon::bench
