// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "halcyon/ops/adaln/backends.h"
#include "halcyon/ops/adaln/cpu_kernel.h"

namespace halcyon::adaln_detail {
namespace {

// Rows of one partial sum: fixed, so that the sum's order is.
constexpr int64_t kRows = 256;

template <class S>
const S* read(const at::Tensor& t, int64_t offset) {
  return static_cast<const S*>(t.const_data_ptr()) + offset;
}
template <class S>
S* write(const at::Tensor& t, int64_t offset) {
  return static_cast<S*>(t.mutable_data_ptr()) + offset;
}

// The states as samples of rows, cut into chunks.
class Chunks {
 public:
  explicit Chunks(const at::Tensor& x)
      : samples(x.size(0)),
        width(x.size(-1)),
        rows(x.numel() / std::max<int64_t>(samples * width, 1)),
        chunks((rows + kRows - 1) / kRows) {}

  // f(sample, first row of the sample, rows, chunk of all).
  template <class F>
  void each(const F& f) const {
    at::parallel_for(0, samples * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % chunks * kRows;
        f(i / chunks, first, std::min(kRows, rows - first), i);
      }
    });
  }
  at::Tensor partial_sums(at::ScalarType type) const {
    return at::zeros({samples, chunks, width}, at::dtype(type));
  }

  int64_t samples, width, rows, chunks;
};

template <class F>
auto with_kernels(at::ScalarType storage, CpuLevel level, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (storage == at::kDouble) return f(table.norm_f64);
  if (storage == at::kBFloat16) return f(table.norm_bf16);
  return f(table.norm_f32);
}

template <class F>
auto with_gates(at::ScalarType storage, at::ScalarType branch, CpuLevel level, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (storage == at::kDouble) return f(table.gate_f64);
  if (storage == at::kBFloat16) return f(table.gate_bf16);
  return branch == at::kBFloat16 ? f(table.gate_f32_bf16) : f(table.gate_f32);
}

template <class T>
at::Tensor condition(const at::Tensor& t) {
  return t.to(c10::CppTypeToScalarType<T>::value).contiguous();
}

}  // namespace

Normed norm_forward(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& factor,
                    double eps, CpuLevel level) {
  return with_kernels(x.scalar_type(), level, [&]<class S, class T>(const Norm<S, T>& kernel) {
    const Chunks chunks(x);
    const auto a = condition<T>(shift), b = condition<T>(factor);
    const auto mean = at::empty({chunks.samples, chunks.rows}, b.options());
    Normed result{at::empty(x.sizes(), x.options()), mean, at::empty_like(mean)};
    chunks.each([&](int64_t sample, int64_t first, int64_t rows, int64_t) {
      const int64_t row = sample * chunks.rows + first, at = row * chunks.width;
      kernel.forward(rows, chunks.width, static_cast<T>(eps), read<S>(x, at),
                     read<T>(a, sample * chunks.width), read<T>(b, sample * chunks.width),
                     write<S>(result.out, at), write<T>(result.mean, row),
                     write<T>(result.inverse, row));
    });
    return result;
  });
}

NormGradients norm_backward(const at::Tensor& grad_out, const at::Tensor& x,
                            const at::Tensor& factor, const at::Tensor& mean,
                            const at::Tensor& inverse, CpuLevel level) {
  return with_kernels(x.scalar_type(), level, [&]<class S, class T>(const Norm<S, T>& kernel) {
    const Chunks chunks(x);
    const auto b = condition<T>(factor);
    const auto grad_x = at::empty(x.sizes(), x.options());
    const auto add_shift = chunks.partial_sums(mean.scalar_type()),
               add_factor = chunks.partial_sums(mean.scalar_type());
    chunks.each([&](int64_t sample, int64_t first, int64_t rows, int64_t chunk) {
      const int64_t row = sample * chunks.rows + first, at = row * chunks.width;
      kernel.backward(rows, chunks.width, read<S>(grad_out, at), read<S>(x, at),
                      read<T>(b, sample * chunks.width), read<T>(mean, row), read<T>(inverse, row),
                      write<S>(grad_x, at), write<T>(add_shift, chunk * chunks.width),
                      write<T>(add_factor, chunk * chunks.width));
    });
    return NormGradients{grad_x, add_shift.sum(1), add_factor.sum(1)};
  });
}

at::Tensor gate_forward(const at::Tensor& residual, const at::Tensor& branch,
                        const at::Tensor& gate, CpuLevel level) {
  return with_gates(residual.scalar_type(), branch.scalar_type(), level,
                    [&]<class S, class R, class T>(const Gate<S, R, T>& kernel) {
                      const Chunks chunks(residual);
                      const auto a = condition<T>(gate);
                      auto out = at::empty(residual.sizes(), residual.options());
                      chunks.each([&](int64_t sample, int64_t first, int64_t rows, int64_t) {
                        const int64_t at = (sample * chunks.rows + first) * chunks.width;
                        kernel.forward(rows, chunks.width, read<S>(residual, at),
                                       read<R>(branch, at), read<T>(a, sample * chunks.width),
                                       write<S>(out, at));
                      });
                      return out;
                    });
}

GateGradients gate_backward(const at::Tensor& grad_out, const at::Tensor& branch,
                            const at::Tensor& gate, CpuLevel level) {
  return with_gates(grad_out.scalar_type(), branch.scalar_type(), level,
                    [&]<class S, class R, class T>(const Gate<S, R, T>& kernel) {
                      const Chunks chunks(branch);
                      const auto a = condition<T>(gate);
                      const auto grad_branch = at::empty(branch.sizes(), branch.options());
                      const auto add_gate = chunks.partial_sums(a.scalar_type());
                      chunks.each([&](int64_t sample, int64_t first, int64_t rows, int64_t chunk) {
                        const int64_t at = (sample * chunks.rows + first) * chunks.width;
                        kernel.backward(rows, chunks.width, read<S>(grad_out, at),
                                        read<R>(branch, at), read<T>(a, sample * chunks.width),
                                        write<R>(grad_branch, at),
                                        write<T>(add_gate, chunk * chunks.width));
                      });
                      return GateGradients{grad_branch, add_gate.sum(1)};
                    });
}

}  // namespace halcyon::adaln_detail
