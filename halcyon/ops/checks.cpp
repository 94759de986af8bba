// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/checks.h"

#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

namespace halcyon {

void check_floating(const at::Tensor& t, int64_t rank, const char* operation, const char* name) {
  HALCYON_CHECK(t.defined() && t.dim() == rank && at::isFloatingType(t.scalar_type()), operation,
                "expected {} of rank {} and a floating type, got {}", name, rank, describe(t));
}

void check_index(const at::Tensor& t, const std::optional<c10::SymInt>& length,
                 const char* operation, const char* name) {
  HALCYON_CHECK(t.defined() && t.dim() == 1 && is_index(t), operation,
                "expected {} of rank 1 in int32 or int64, got {}", name, describe(t));
  HALCYON_CHECK(!length || t.sym_size(0) == *length, operation, "expected {} of length {}, got {}",
                name, length->guard_int(__FILE__, __LINE__),
                t.sym_size(0).guard_int(__FILE__, __LINE__));
}

void check_shape(const at::Tensor& t, c10::SymIntArrayRef sizes, const char* operation,
                 const char* name) {
  const auto numbers = [&] {
    std::vector<int64_t> all;
    for (const auto& size : sizes) all.push_back(size.guard_int(__FILE__, __LINE__));
    return all;
  };
  HALCYON_CHECK(t.defined() && t.sym_sizes() == sizes, operation,
                "expected {} of shape ({}), got {}", name, fmt::join(numbers(), ", "), describe(t));
}

void check_device(const at::Tensor& t, const at::Tensor& reference, const char* operation,
                  const char* name) {
  HALCYON_CHECK(t.device() == reference.device(), operation, "expected {} on {}, got {}", name,
                reference.device().str(), t.device().str());
}

void check_first_derivative(const char* operation) {
  HALCYON_CHECK(!at::GradMode::is_enabled(), operation,
                "expected a first derivative, got a backward with create_graph");
}

}  // namespace halcyon
