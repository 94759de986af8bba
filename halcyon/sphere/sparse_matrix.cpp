// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/sparse_matrix.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <type_traits>
#include <utility>

#include "halcyon/base/error.h"

namespace halcyon {

// a counting sort
CsrData transpose(const CsrData& m) {
  CsrData t;
  t.rows = m.columns;
  t.columns = m.rows;
  t.row_start.assign(t.rows + 1, 0);
  for (const int32_t c : m.column) ++t.row_start[c + 1];
  for (int64_t r = 0; r < t.rows; ++r) t.row_start[r + 1] += t.row_start[r];
  t.column.resize(m.column.size());
  t.weight.resize(m.weight.size());
  auto place = t.row_start;
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t k = m.row_start[r]; k < m.row_start[r + 1]; ++k) {
      const int64_t at = place[m.column[k]]++;
      t.column[at] = static_cast<int32_t>(r);
      t.weight[at] = m.weight[k];
    }
  }
  return t;
}

namespace {

void check_matrix(const CsrData& m) {
  constexpr auto kMost = std::numeric_limits<int32_t>::max();
  HALCYON_CHECK(m.rows >= 0 && m.columns >= 0 && m.rows <= kMost && m.columns <= kMost,
                "SparseMatrix", "expected 0..{} rows and columns, got {} x {}", kMost, m.rows,
                m.columns);
  const auto entries = static_cast<int64_t>(m.column.size());
  HALCYON_CHECK(static_cast<int64_t>(m.row_start.size()) == m.rows + 1 && m.row_start[0] == 0 &&
                    m.row_start.back() == entries &&
                    static_cast<int64_t>(m.weight.size()) == entries,
                "SparseMatrix", "expected {} row starts from 0 to the number of entries, {}",
                m.rows + 1, entries);
  for (int64_t r = 0; r < m.rows; ++r) {
    HALCYON_CHECK(m.row_start[r] <= m.row_start[r + 1], "SparseMatrix",
                  "expected row starts that do not fall, got {} after {}", m.row_start[r + 1],
                  m.row_start[r]);
  }
  for (const int32_t c : m.column) {
    HALCYON_CHECK(c >= 0 && c < m.columns, "SparseMatrix", "expected columns in 0..{}, got {}",
                  m.columns - 1, c);
  }
}

// What one output is made of: value = sum / scale.
enum class Rule {
  forward,      // NaN without inputs
  adjoint,      // zero without inputs
  renormalise,  // over the inputs that are not NaN
};

struct Sums {
  double value, present, all;
};

template <Rule rule, class T>
Sums gather(const CsrData& m, int64_t row, const T* x) {
  Sums s = {0, 0, 0};
  for (int64_t k = m.row_start[row]; k < m.row_start[row + 1]; ++k) {
    const double w = m.weight[k], v = static_cast<double>(x[m.column[k]]);
    if constexpr (rule == Rule::renormalise) {
      s.all += w;
      if (std::isnan(v)) continue;
      s.present += w;
    }
    s.value += w * v;
  }
  return s;
}

// What the sum over the present inputs is multiplied by; NaN where they hold less than half.
double renormalised(const Sums& s) {
  return s.all > 0 && s.present >= 0.5 * s.all ? s.all / s.present
                                               : std::numeric_limits<double>::quiet_NaN();
}

template <Rule rule, class T>
double output(const CsrData& m, int64_t row, const T* x) {
  if (rule == Rule::forward && m.row_start[row] == m.row_start[row + 1]) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const Sums s = gather<rule>(m, row, x);
  return rule == Rule::renormalise ? s.value * renormalised(s) : s.value;
}

// f(tag) with the rule as a type.
template <class F>
void dispatch_rule(Rule rule, const F& f) {
  switch (rule) {
    case Rule::forward:
      return f(std::integral_constant<Rule, Rule::forward>{});
    case Rule::adjoint:
      return f(std::integral_constant<Rule, Rule::adjoint>{});
    case Rule::renormalise:
      return f(std::integral_constant<Rule, Rule::renormalise>{});
  }
}

constexpr int64_t kGrain = 2048;  // outputs a task

// (..., m.columns) -> (..., m.rows), one(row, field) for each output.
template <class T, class One>
at::Tensor for_each_output(const CsrData& m, const at::Tensor& field, const One& one) {
  auto shape = field.sizes().vec();
  shape.back() = m.rows;
  auto out = at::empty(shape, field.options());
  const T* x = field.const_data_ptr<T>();
  T* y = out.mutable_data_ptr<T>();
  at::parallel_for(0, out.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(one(i, x + i / m.rows * m.columns));
  });
  return out;
}

at::Tensor multiply(const CsrData& m, const at::Tensor& field, Rule rule) {
  at::Tensor out;
  const auto x = field.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "regrid", [&] {
    dispatch_rule(rule, [&](auto tag) {
      out = for_each_output<scalar_t>(m, x, [&](int64_t i, const scalar_t* values) {
        return output<decltype(tag)::value>(m, i % m.rows, values);
      });
    });
  });
  return out;
}

// d(output)/d(present inputs' sum), zero where the output is NaN.
at::Tensor renormalising_factors(const CsrData& m, const at::Tensor& field) {
  const auto x = field.to(at::kDouble).contiguous();
  return for_each_output<double>(m, x, [&](int64_t i, const double* values) {
    const double factor = renormalised(gather<Rule::renormalise>(m, i % m.rows, values));
    return std::isnan(factor) ? 0.0 : factor;
  });
}

void check_field(const char* operation, const at::Tensor& field, int64_t width) {
  HALCYON_CHECK(field.defined() && field.dim() >= 1 && field.size(-1) == width, operation,
                "expected a field of shape (..., {}), got [{}]", width,
                field.defined() ? fmt::format("{}", fmt::join(field.sizes(), ", ")) : "undefined");
  HALCYON_CHECK(field.is_floating_point(), operation, "expected a floating-point field, got {}",
                c10::toString(field.scalar_type()));
  HALCYON_CHECK(field.device().is_cpu(), operation, "expected a field on the CPU, got {}",
                field.device().str());
}

}  // namespace

struct SparseMatrix::Impl {
  CsrData forward;
  mutable std::once_flag once;
  mutable CsrData backward;

  // Made when first asked for: inference never needs it.
  const CsrData& transpose() const {
    std::call_once(once, [this] { backward = halcyon::transpose(forward); });
    return backward;
  }
};

namespace {

using ImplPtr = std::shared_ptr<const SparseMatrix::Impl>;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// The matrix travels through autograd's saved data.
struct Holder : torch::CustomClassHolder {
  explicit Holder(ImplPtr p) : impl(std::move(p)) {}
  ImplPtr impl;
};

// The matrix or its transpose; its own backward, so differentiable any number of times.
struct Multiply : torch::autograd::Function<Multiply> {
  static Variable forward(AutogradContext* ctx, const Variable& field, const ImplPtr& impl,
                          bool transpose, Rule rule) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["matrix"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(impl));
    ctx->saved_data["transpose"] = transpose;
    return multiply(transpose ? impl->transpose() : impl->forward, field, rule);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradient) {
    const auto capsule = ctx->saved_data["matrix"].toCapsule();
    const auto& impl = static_cast<const Holder&>(*capsule).impl;
    const bool transpose = ctx->saved_data["transpose"].toBool();
    return {Multiply::apply(gradient[0], impl, !transpose, Rule::adjoint), {}, {}, {}};
  }
};

struct MultiplyPresent : torch::autograd::Function<MultiplyPresent> {
  static Variable forward(AutogradContext* ctx, const Variable& field, const ImplPtr& impl) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["matrix"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(impl));
    ctx->save_for_backward({field});
    return multiply(impl->forward, field, Rule::renormalise);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradient) {
    const auto capsule = ctx->saved_data["matrix"].toCapsule();
    const auto& impl = static_cast<const Holder&>(*capsule).impl;
    const auto field = ctx->get_saved_variables()[0];
    const auto scaled = at::mul(gradient[0], renormalising_factors(impl->forward, field));
    const auto spread = Multiply::apply(scaled, impl, true, Rule::adjoint);
    return {spread.masked_fill(field.isnan(), 0).to(field.scalar_type()), {}};
  }
};

}  // namespace

SparseMatrix::SparseMatrix(CsrData data) {
  check_matrix(data);
  auto impl = std::make_shared<Impl>();
  impl->forward = std::move(data);
  impl_ = std::move(impl);
}

int64_t SparseMatrix::rows() const {
  return impl_->forward.rows;
}
int64_t SparseMatrix::columns() const {
  return impl_->forward.columns;
}
const CsrData& SparseMatrix::data() const {
  return impl_->forward;
}

at::Tensor SparseMatrix::apply(const at::Tensor& field, Missing missing) const {
  check_field("regrid", field, columns());
  if (missing == Missing::renormalise) return MultiplyPresent::apply(field, impl_);
  return Multiply::apply(field, impl_, false, Rule::forward);
}

at::Tensor SparseMatrix::adjoint(const at::Tensor& field) const {
  check_field("regrid adjoint", field, rows());
  return Multiply::apply(field, impl_, true, Rule::adjoint);
}

}  // namespace halcyon
