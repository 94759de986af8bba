// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/adaln/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::adaln_detail {
namespace {

// Calls vector(c) for whole vectors from column c on and one(c) for the rest.
template <class T, class V, class O>
inline void each_column(int64_t width, const V& vector, const O& one) {
  int64_t c = 0;
  for (; c + kLanes<T> <= width; c += kLanes<T>) vector(c);
  for (; c < width; ++c) one(c);
}

// The sum of what they return.
template <class T, class V, class O>
inline T sum_columns(int64_t width, const V& vector, const O& one) {
  constexpr int kSums = 4;  // hide the latency of an addition
  Vector<T> sum[kSums] = {};
  int64_t c = 0;
  for (; c + kSums * kLanes<T> <= width; c += kSums * kLanes<T>) {
#pragma GCC unroll 4
    for (int i = 0; i < kSums; ++i) sum[i] += vector(c + i * kLanes<T>);
  }
  for (; c + kLanes<T> <= width; c += kLanes<T>) sum[0] += vector(c);
  T total = sum_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; c < width; ++c) total += one(c);
  return total;
}

template <class T>
inline T root(T x) {
  return sizeof(T) == 4 ? T(__builtin_sqrtf(static_cast<float>(x))) : T(__builtin_sqrt(x));
}

template <class S, class T>
void norm_forward(int64_t rows, int64_t width, T eps, const S* x, const T* shift, const T* factor,
                  S* out, T* means, T* inverses) {
  for (int64_t row = 0; row < rows; ++row, x += width, out += width) {
    const T mean =
        sum_columns<T>(
            width, [&](int64_t c) { return load(x + c); }, [&](int64_t c) { return get(x + c); }) /
        static_cast<T>(width);
    const T squares = sum_columns<T>(
        width,
        [&](int64_t c) {
          const auto d = load(x + c) - mean;
          return d * d;
        },
        [&](int64_t c) { return (get(x + c) - mean) * (get(x + c) - mean); });
    const T inverse = 1 / root(squares / static_cast<T>(width) + eps);
    means[row] = mean;
    inverses[row] = inverse;
    each_column<T>(
        width,
        [&](int64_t c) {
          store(out + c, load(shift + c) + (load(x + c) - mean) * inverse * load(factor + c));
        },
        [&](int64_t c) { put(out + c, shift[c] + (get(x + c) - mean) * inverse * factor[c]); });
  }
}

// With n = (x - mean) inverse and h = grad_out factor: dx = inverse (h - mean(h) - n mean(h n)).
template <class S, class T>
void norm_backward(int64_t rows, int64_t width, const S* grad_out, const S* x, const T* factor,
                   const T* means, const T* inverses, S* grad_x, T* add_shift, T* add_factor) {
  for (int64_t row = 0; row < rows; ++row, x += width, grad_out += width, grad_x += width) {
    const T mean = means[row], inverse = inverses[row];
    const T along = sum_columns<T>(
                        width, [&](int64_t c) { return load(grad_out + c) * load(factor + c); },
                        [&](int64_t c) { return get(grad_out + c) * factor[c]; }) /
                    static_cast<T>(width);
    const T across =
        sum_columns<T>(
            width,
            [&](int64_t c) { return load(grad_out + c) * load(factor + c) * (load(x + c) - mean); },
            [&](int64_t c) { return get(grad_out + c) * factor[c] * (get(x + c) - mean); }) *
        inverse / static_cast<T>(width);
    each_column<T>(
        width,
        [&](int64_t c) {
          const auto g = load(grad_out + c), n = (load(x + c) - mean) * inverse;
          store(add_shift + c, load(add_shift + c) + g);
          store(add_factor + c, load(add_factor + c) + g * n);
          store(grad_x + c, (g * load(factor + c) - along - n * across) * inverse);
        },
        [&](int64_t c) {
          const T g = get(grad_out + c), n = (get(x + c) - mean) * inverse;
          add_shift[c] += g;
          add_factor[c] += g * n;
          put(grad_x + c, (g * factor[c] - along - n * across) * inverse);
        });
  }
}

template <class S, class R, class T>
void gate_forward(int64_t rows, int64_t width, const S* residual, const R* branch, const T* gate,
                  S* out) {
  for (int64_t row = 0; row < rows; ++row, residual += width, branch += width, out += width) {
    each_column<T>(
        width,
        [&](int64_t c) { store(out + c, load(residual + c) + load(gate + c) * load(branch + c)); },
        [&](int64_t c) { put(out + c, get(residual + c) + gate[c] * get(branch + c)); });
  }
}

template <class S, class R, class T>
void gate_backward(int64_t rows, int64_t width, const S* grad_out, const R* branch, const T* gate,
                   R* grad_branch, T* add_gate) {
  for (int64_t row = 0; row < rows;
       ++row, grad_out += width, branch += width, grad_branch += width) {
    each_column<T>(
        width,
        [&](int64_t c) {
          const auto g = load(grad_out + c);
          store(add_gate + c, load(add_gate + c) + g * load(branch + c));
          store(grad_branch + c, g * load(gate + c));
        },
        [&](int64_t c) {
          const T g = get(grad_out + c);
          add_gate[c] += g * get(branch + c);
          put(grad_branch + c, g * gate[c]);
        });
  }
}

KernelTable make_kernels() {
  return {{norm_forward<float, float>, norm_backward<float, float>},
          {norm_forward<Bf16, float>, norm_backward<Bf16, float>},
          {norm_forward<double, double>, norm_backward<double, double>},
          {gate_forward<float, float, float>, gate_backward<float, float, float>},
          {gate_forward<float, Bf16, float>, gate_backward<float, Bf16, float>},
          {gate_forward<Bf16, Bf16, float>, gate_backward<Bf16, Bf16, float>},
          {gate_forward<double, double, double>, gate_backward<double, double, double>}};
}

}  // namespace
}  // namespace halcyon::adaln_detail
