// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/checks.h"

#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/parameters.h"

namespace halcyon::nn {
namespace {

bool autocast_takes(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

bool autocast_on(const at::Tensor& x) {
  return at::autocast::is_autocast_enabled(x.device().type());
}

void check_input(std::string_view module, std::string_view name, const at::Tensor& x,
                 const at::Tensor& weight) {
  HALCYON_CHECK(x.defined() && x.is_floating_point(), module, "expected a floating {}, got {}",
                name, describe(x));
  HALCYON_CHECK(!is_placeholder(weight), module,
                "expected weights, got a model built without values and not loaded since");
  HALCYON_CHECK(x.device() == weight.device(), module, "expected {} on {}, got {}", name,
                weight.device().str(), describe(x));
  const bool mixed =
      autocast_on(x) && autocast_takes(x.scalar_type()) && autocast_takes(weight.scalar_type());
  HALCYON_CHECK(mixed || x.scalar_type() == weight.scalar_type(), module,
                "expected {} of the module's dtype {}, got {}", name,
                c10::toString(weight.scalar_type()), describe(x));
}

void check_rank(std::string_view module, std::string_view name, const at::Tensor& x, int64_t rank,
                std::string_view layout) {
  HALCYON_CHECK(x.defined() && x.dim() == rank, module, "expected {} {}, got {}", name, layout,
                describe(x));
}

void check_width(std::string_view module, std::string_view name, const at::Tensor& x,
                 int64_t width) {
  HALCYON_CHECK(x.size(-1) == width, module, "expected {} of width {}, got {}", name, width,
                describe(x));
}

void check_rate(std::string_view module, std::string_view name, double rate) {
  HALCYON_CHECK(rate >= 0 && rate <= 1, module, "expected {} between 0 and 1, got {}", name, rate);
}

int64_t head_width(std::string_view module, int64_t hidden_size, int64_t num_heads) {
  check_positive(module, "hidden_size", hidden_size);
  check_positive(module, "num_heads", num_heads);
  HALCYON_CHECK(hidden_size % num_heads == 0, module,
                "expected hidden_size divisible by num_heads, got {} and {}", hidden_size,
                num_heads);
  return hidden_size / num_heads;
}

void check_positive(std::string_view module, std::string_view name, int64_t value) {
  HALCYON_CHECK(value > 0, module, "expected {} of at least 1, got {}", name, value);
}

}  // namespace halcyon::nn
