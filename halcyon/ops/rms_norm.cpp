// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dense_rows.h"
#include "halcyon/ops/dispatch.h"

namespace halcyon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

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

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x, const MaybeTensor& weight,
                                           double eps) {
  const auto rows = with_dense_rows(x), w = wide_weight(weight.value_or(at::Tensor()), x);
  const auto y = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
  const auto inverse = at::empty(x.sizes().slice(0, x.dim() - 1),
                                 x.options().dtype(at::toOpMathType(x.scalar_type())));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), kName,
                                  [&] { normalise<scalar_t>(rows, w, eps, y, inverse); });
  return {y, inverse};
}

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& x, const MaybeTensor& /*weight*/,
                                                double /*eps*/) {
  const auto type = at::toOpMathType(x.scalar_type());
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint(x.sym_sizes().slice(0, x.dim() - 1), x.options().dtype(type))};
}

// The gradients of x and, if asked for, of the weight, else none.
std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad_out, const at::Tensor& x,
                                            const MaybeTensor& weight, const at::Tensor& inverse,
                                            bool of_weight) {
  const auto rows = with_dense_rows(x), g = with_dense_rows(grad_out.to(x.scalar_type()));
  const auto w = wide_weight(weight.value_or(at::Tensor()), x);
  const auto dx = at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
  at::Tensor partial;
  if (of_weight) {
    const int64_t chunks = (inverse.numel() + kChunk - 1) / kChunk;
    partial = at::zeros({chunks, x.size(-1)}, inverse.options());
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), kName,
                                  [&] { pull_back<scalar_t>(g, rows, w, inverse, dx, partial); });
  return {dx, of_weight ? partial.sum(0).to(weight->scalar_type()) : at::empty({0}, x.options())};
}

std::tuple<at::Tensor, at::Tensor> backward_meta(const at::Tensor& /*grad_out*/,
                                                 const at::Tensor& x, const MaybeTensor& weight,
                                                 const at::Tensor& /*inverse*/, bool of_weight) {
  return {at::empty_symint(x.sym_sizes(), x.options()),
          of_weight ? at::empty_symint(weight->sym_sizes(), weight->options())
                    : at::empty({0}, x.options())};
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const MaybeTensor& weight, double eps) {
    static const auto op = operator_named<decltype(halcyon::forward)>("halcyon::_rms_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, inverse] = op.call(x, weight, eps);
    context->save_for_backward({x, weight.value_or(at::Tensor()), inverse});
    context->saved_data["eps"] = eps;
    context->mark_non_differentiable({inverse});
    return {y, inverse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_rms_norm_backward");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    if (at::GradMode::is_enabled()) {  // somebody differentiates the gradient
      const auto y = composed(x, weight, context->saved_data["eps"].toDouble());
      variable_list result(3);
      for (const size_t i : {0, 1}) {
        if (!saved[i].defined() || !saved[i].requires_grad()) continue;
        result[i] = torch::autograd::grad({y}, {saved[i]}, {grad[0]}, true, true)[0];
      }
      return result;
    }
    const bool of_weight = weight.defined() && context->needs_input_grad(1);
    auto [of_x, dw] = op.call(grad[0], x, if_defined(weight), saved[2], of_weight);
    return {of_x, of_weight ? dw : at::Tensor(), {}};
  }
};

std::tuple<at::Tensor, at::Tensor> autograd(const at::Tensor& x, const MaybeTensor& weight,
                                            double eps) {
  const auto result = RmsNorm::apply(x, weight, eps);
  return {result[0], result[1]};
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps) {
  HALCYON_CHECK(x.defined() && x.dim() >= 1 && at::isFloatingType(x.scalar_type()), kName,
                "expected a floating x of rank 1 or more, got {}", describe(x));
  const auto w = weight.value_or(at::Tensor());
  if (w.defined()) {
    check_floating(w, 1, kName, "weight");
    HALCYON_CHECK(w.sym_size(0) == x.sym_size(-1), kName, "expected weight of {} elements, got {}",
                  x.sym_size(-1).guard_int(__FILE__, __LINE__), describe(w));
    check_device(w, x, kName, "weight");
  }
  if (needs_composition({x, w})) return composed(x, w, eps);
  if (!x.is_cpu()) {
    if (w.defined() && w.scalar_type() != x.scalar_type()) return composed(x, w, eps);
    return at::rms_norm_symint(x, {x.sym_size(-1)}, weight, eps);
  }
  static const auto op = operator_named<decltype(forward)>("halcyon::_rms_norm");
  return std::get<0>(op.call(x, if_defined(w), eps));
}

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def("rms_norm(Tensor x, Tensor? weight, float eps) -> Tensor",
        torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(rms_norm)));
  m.def("_rms_norm(Tensor x, Tensor? weight, float eps) -> (Tensor, Tensor)");
  m.def(
      "_rms_norm_backward(Tensor grad_out, Tensor x, Tensor? weight, Tensor inverse, "
      "bool of_weight) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_rms_norm", TORCH_FN(forward));
  m.impl("_rms_norm_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_rms_norm", TORCH_FN(forward_meta));
  m.impl("_rms_norm_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_rms_norm", TORCH_FN(autograd));
}

}  // namespace halcyon
