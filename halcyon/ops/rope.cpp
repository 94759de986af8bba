// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/rope.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/checks.h"

namespace halcyon {

std::tuple<at::Tensor, at::Tensor> rope_tables(int64_t head_dim, int64_t seq_len, double theta) {
  HALCYON_CHECK(head_dim > 0 && head_dim % 2 == 0, "rope_tables",
                "expected an even, positive head_dim, got {}", head_dim);
  HALCYON_CHECK(seq_len >= 0, "rope_tables", "expected seq_len >= 0, got {}", seq_len);
  HALCYON_CHECK(std::isfinite(theta) && theta > 0, "rope_tables", "expected theta > 0, got {}",
                theta);
  const auto exponent = at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim);
  const auto frequency = 1.0 / at::pow(theta, exponent);
  const auto angle = at::outer(at::arange(seq_len, at::kFloat), frequency);
  const auto both = angle.repeat_interleave(2, 1);
  return {both.cos(), both.sin()};
}

at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                      int64_t time_dim) {
  HALCYON_CHECK(x.defined() && x.dim() >= 2 && at::isFloatingType(x.scalar_type()), "apply_rope",
                "expected x of rank 2 or more and a floating type, got {}", describe(x));
  HALCYON_CHECK(time_dim >= -x.dim() && time_dim < x.dim() - 1 && time_dim != -1, "apply_rope",
                "expected time_dim to be an axis of x other than the last, got {}", time_dim);
  const int64_t axis = time_dim < 0 ? time_dim + x.dim() : time_dim;
  const int64_t width = x.size(-1);
  HALCYON_CHECK(width % 2 == 0, "apply_rope", "expected an even head_dim, got {}", width);
  for (const auto* table : {&cos, &sin}) {
    check_floating(*table, 2, "apply_rope", "a table");
    HALCYON_CHECK(table->size(0) == x.size(axis) && table->size(1) == width, "apply_rope",
                  "expected tables of shape ({}, {}), got {}", x.size(axis), width,
                  describe(*table));
    check_device(*table, x, "apply_rope", "the tables");
  }
  const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<int64_t> shape(x.dim() + 1, 1);  // the tables beside x, pairs split off
  shape[axis] = x.size(axis);
  shape[x.dim() - 1] = width / 2;
  shape[x.dim()] = 2;
  const auto c = cos.to(type).reshape(shape), s = sin.to(type).reshape(shape);
  const auto pairs = x.to(type).unflatten(-1, {width / 2, 2});
  const auto a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  const auto first = a * c.select(-1, 0) - b * s.select(-1, 0);
  const auto second = a * s.select(-1, 1) + b * c.select(-1, 1);
  return at::stack({first, second}, -1).flatten(-2).to(x.scalar_type());
}

}  // namespace halcyon
