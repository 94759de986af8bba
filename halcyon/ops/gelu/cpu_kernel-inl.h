// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set: see simd-inl.h for what may stand here.
#include "halcyon/ops/gelu/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::gelu_detail {
namespace {

using V = Vector<float>;
constexpr int kN = kLanes<float>;
constexpr float kCubic = 0.044715f;
constexpr float kRate = 2 * 0.7978845608f;  // 2 sqrt(2 / pi)
constexpr float kLog2E = 1.44269504f;

// e^-2u, of which x / (1 + e^-2u) passes.
inline V against(V x) {
  return power_of_two(x * (x * x * (-kRate * kLog2E * kCubic) - kRate * kLog2E));
}
inline V value(V x) {
  return x / (1.0f + against(x));
}
inline V slope(V x) {
  const auto e = against(x), share = 1.0f / (1.0f + e);
  const auto rate = x * x * (3 * kRate * kCubic) + kRate;
  // share (1 - share) without the difference; far out it is zero, whatever its factors overflow to
  const auto change = share * share * e;
  return share + (change > 0.0f ? x * rate * change : V{});
}

// f of whole vectors, and of what is left in one that is filled up with zeros.
template <class S, class F>
inline void each_vector(int64_t size, const F& f, const S* a, const S* b, S* to) {
  const int64_t whole = size / kN * kN;
  for (int64_t i = 0; i < whole; i += kN) store(to + i, f(load(a + i), load(b + i)));
  if (whole == size) return;
  S rest[3][kN] = {};
  for (int64_t i = whole; i < size; ++i) {
    rest[0][i - whole] = a[i];
    rest[1][i - whole] = b[i];
  }
  store(rest[2], f(load(rest[0]), load(rest[1])));
  for (int64_t i = whole; i < size; ++i) to[i] = rest[2][i - whole];
}

template <class S>
Kernels<S> make() {
  return {[](int64_t size, const S* x, S* y) {
            each_vector(
                size, [](V a, V /*again*/) { return value(a); }, x, x, y);
          },
          [](int64_t size, const S* grad_y, const S* x, S* grad_x) {
            each_vector(
                size, [](V g, V a) { return g * slope(a); }, grad_y, x, grad_x);
          }};
}

KernelTable make_kernels() {
  return {make<float>(), make<Bf16>()};
}

}  // namespace
}  // namespace halcyon::gelu_detail
