// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dense_rows.h"

namespace halcyon {
namespace {

constexpr const char* kName = "rms_norm";
// Rows of one partial sum of the weight's gradient: fixed, so that the sum's order is.
constexpr int64_t kChunk = 1024;
constexpr int64_t kGrain = 256;

// Where the rows (the last axis) of a tensor begin. Its last axis is contiguous.
class Rows {
 public:
  explicit Rows(const at::Tensor& x) : count_(x.size(-1) > 0 ? x.numel() / x.size(-1) : 0) {
    for (int64_t axis = x.dim() - 2; axis >= 0; --axis) {
      if (x.size(axis) == 1) continue;
      if (!sizes_.empty() && x.stride(axis) == sizes_.back() * strides_.back()) {
        sizes_.back() *= x.size(axis);  // walks on where the axis behind it ends
      } else {
        sizes_.push_back(x.size(axis));
        strides_.push_back(x.stride(axis));
      }
    }
  }
  int64_t count() const { return count_; }
  int64_t offset(int64_t row) const {
    int64_t sum = 0;
    for (size_t axis = 0; axis < sizes_.size(); ++axis) {
      sum += row % sizes_[axis] * strides_[axis];
      row /= sizes_[axis];
    }
    return sum;
  }

 private:
  int64_t count_;
  std::vector<int64_t> sizes_, strides_;  // fastest axis first
};

// The weight in the type of the sums, ones without one.
at::Tensor wide_weight(const at::Tensor& weight, const at::Tensor& x) {
  const auto type = at::toOpMathType(x.scalar_type());
  return weight.defined() ? weight.to(type).contiguous()
                          : at::ones({x.size(-1)}, x.options().dtype(type));
}

// Half types are added up in float32.
template <class T, class Acc = at::opmath_type<T>>
void normalise(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& y,
               const at::Tensor& inverse) {
  const Rows rows(x);
  const int64_t width = x.size(-1);
  const T* const in = x.const_data_ptr<T>();
  const Acc* const w = weight.const_data_ptr<Acc>();
  T* const out = y.mutable_data_ptr<T>();
  Acc* const inv = inverse.mutable_data_ptr<Acc>();
  at::parallel_for(0, rows.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const a = in + rows.offset(row);
      T* const b = out + row * width;
      Acc squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < width; ++i)
        squares += static_cast<Acc>(a[i]) * static_cast<Acc>(a[i]);
      const Acc scale = 1 / std::sqrt(squares / static_cast<Acc>(width) + static_cast<Acc>(eps));
      inv[row] = scale;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i)
        b[i] = static_cast<T>(static_cast<Acc>(a[i]) * scale * w[i]);
    }
  });
}

// dx = r (g w - x r^2 mean(g w x)) with r = 1 / sqrt(mean(x^2) + eps); dw = sum over rows of g x r,
// by chunks of rows in partial (chunks, width).
template <class T, class Acc = at::opmath_type<T>>
void pull_back(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight,
               const at::Tensor& inverse, const at::Tensor& dx, const at::Tensor& partial) {
  const Rows rows(x), cotangents(g);
  const int64_t width = x.size(-1);
  const T* const in = x.const_data_ptr<T>();
  const T* const up = g.const_data_ptr<T>();
  const Acc* const w = weight.const_data_ptr<Acc>();
  const Acc* const inv = inverse.const_data_ptr<Acc>();
  T* const out = dx.mutable_data_ptr<T>();
  Acc* const sums = partial.defined() ? partial.mutable_data_ptr<Acc>() : nullptr;
  const int64_t chunks = (rows.count() + kChunk - 1) / kChunk;
  at::parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t end = std::min(rows.count(), (chunk + 1) * kChunk);
      for (int64_t row = chunk * kChunk; row < end; ++row) {
        const T* const a = in + rows.offset(row);
        const T* const b = up + cotangents.offset(row);
        T* const c = out + row * width;
        const Acc r = inv[row];
        Acc product = 0;
#pragma omp simd reduction(+ : product)
        for (int64_t i = 0; i < width; ++i)
          product += static_cast<Acc>(b[i]) * w[i] * static_cast<Acc>(a[i]);
        const Acc pull = product / static_cast<Acc>(width) * r * r;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i)
          c[i] =
              static_cast<T>(r * (static_cast<Acc>(b[i]) * w[i] - static_cast<Acc>(a[i]) * pull));
        if (sums == nullptr) continue;
        Acc* const s = sums + chunk * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i)
          s[i] += static_cast<Acc>(b[i]) * static_cast<Acc>(a[i]) * r;
      }
    }
  });
}

at::Tensor composed(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto type = at::toOpMathType(x.scalar_type());
  const auto wide = x.to(type);
  const auto y = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return (weight.defined() ? y * weight.to(type) : y).to(x.scalar_type());
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& affine, double eps) {
    const auto weight = affine.value_or(at::Tensor());
    const auto rows = with_dense_rows(x), w = wide_weight(weight, x);
    const auto type = at::toOpMathType(x.scalar_type());
    const auto y = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
    auto leading = x.sizes().vec();
    leading.pop_back();
    const auto inverse = at::empty(leading, x.options().dtype(type));
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), kName,
                                    [&] { normalise<scalar_t>(rows, w, eps, y, inverse); });
    ctx->save_for_backward({x, weight, inverse});
    ctx->saved_data["eps"] = eps;
    return y;
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* ctx,
                                               const torch::autograd::tensor_list& gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &inverse = saved[2];
    if (at::GradMode::is_enabled()) {  // somebody differentiates the gradient
      const auto y = composed(x, weight, ctx->saved_data["eps"].toDouble());
      torch::autograd::tensor_list result(3);
      for (const size_t i : {0, 1}) {
        if (!saved[i].defined() || !saved[i].requires_grad()) continue;
        result[i] = torch::autograd::grad({y}, {saved[i]}, {gradients[0]}, true, true)[0];
      }
      return result;
    }
    const auto rows = with_dense_rows(x), g = with_dense_rows(gradients[0]);
    const auto w = wide_weight(weight, x);
    const auto dx = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
    at::Tensor partial;
    if (weight.defined() && ctx->needs_input_grad(1)) {
      const int64_t chunks = (inverse.numel() + kChunk - 1) / kChunk;
      partial = at::zeros({chunks, x.size(-1)}, inverse.options());
    }
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), kName,
                                    [&] { pull_back<scalar_t>(g, rows, w, inverse, dx, partial); });
    const auto dw = partial.defined() ? partial.sum(0).to(weight.scalar_type()) : at::Tensor();
    return {dx, dw, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps) {
  HALCYON_CHECK(x.defined() && x.dim() >= 1 && at::isFloatingType(x.scalar_type()), kName,
                "expected a floating x of rank 1 or more, got {}", describe(x));
  const auto w = weight.value_or(at::Tensor());
  if (w.defined()) {
    check_floating(w, 1, kName, "weight");
    HALCYON_CHECK(w.size(0) == x.size(-1), kName, "expected weight of {} elements, got {}",
                  x.size(-1), describe(w));
    check_device(w, x, kName, "weight");
  }
  if (x.is_cpu() && x.numel() > 0) {
    // autograd takes a missing tensor only as an empty optional
    const auto affine = w.defined() ? weight : std::nullopt;
    return RmsNorm::apply(x, affine, eps);
  }
  if (w.defined() && w.scalar_type() != x.scalar_type()) return composed(x, w, eps);
  return at::rms_norm(x, {x.size(-1)}, weight, eps);
}

}  // namespace halcyon
