// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "halcyon/ops/pixel_attention/packing.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

namespace halcyon::test {

// One problem of pixel_attention with random inputs.
struct AttentionCase {
  int64_t heads, n_kv, head_dim, token_dim;
  std::vector<int64_t> counts;
  bool bias = true;
};

struct AttentionInputs {
  at::Tensor q, tokens, w_k, w_v, b_k, b_v, cu;
  int64_t n_kv;

  AttentionInputs(const AttentionCase& c, at::ScalarType type = at::kDouble, uint64_t seed = 7)
      : n_kv(c.n_kv) {
    at::manual_seed(seed);
    const auto counts = at::tensor(c.counts, at::kLong);
    const int64_t rows = counts.sum().item<int64_t>(), width = c.n_kv * c.head_dim;
    const auto random = [&](std::vector<int64_t> shape, double size) {
      return (at::randn(shape, at::kDouble) * size).to(type);
    };
    q = random({counts.size(0), c.heads, c.head_dim}, 1.0);
    tokens = random({rows, c.token_dim}, 1.0);
    w_k = random({width, c.token_dim}, 1.0 / std::sqrt(c.token_dim));
    w_v = random({width, c.token_dim}, 1.0 / std::sqrt(c.token_dim));
    if (c.bias) {
      b_k = random({width}, 1.0);
      b_v = random({width}, 1.0);
    }
    cu = counts_to_cu_seqlens(counts);
  }

  std::vector<at::Tensor*> floating() {
    std::vector<at::Tensor*> all{&q, &tokens, &w_k, &w_v};
    if (b_v.defined()) all.push_back(&b_v);
    return all;
  }
  AttentionInputs& require_grad() {
    for (auto* t : floating()) *t = t->detach().requires_grad_();
    return *this;
  }
  std::optional<at::Tensor> value_bias() const {
    return b_v.defined() ? std::optional(b_v) : std::nullopt;
  }
  at::Tensor run(const std::optional<PixelGroupMap>& map = {}) const {
    return pixel_attention(q, tokens, w_k, w_v, cu, 0, n_kv, {}, {}, value_bias(), false, map);
  }
  // Pixel by pixel and head by head with ATen, in the inputs' type: independent of the folding and
  // differentiable.
  at::Tensor brute_force(double scale) const {
    const int64_t heads = q.size(1), width = q.size(2);
    auto k = at::matmul(tokens, w_k.t()), v = at::matmul(tokens, w_v.t());
    if (b_v.defined()) v = v + b_v;
    const auto offsets = cu.to(at::kLong);
    std::vector<at::Tensor> pixels;
    for (int64_t p = 0; p < q.size(0); ++p) {
      const auto begin = offsets[p].item<int64_t>(), end = offsets[p + 1].item<int64_t>();
      std::vector<at::Tensor> rows;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t column = h / (heads / n_kv) * width;
        const auto keys = k.slice(0, begin, end).slice(1, column, column + width);
        const auto values = v.slice(0, begin, end).slice(1, column, column + width);
        rows.push_back(begin == end
                           ? at::zeros({width}, q.options())
                           : at::matmul((at::matmul(keys, q[p][h]) * scale).softmax(0), values));
      }
      pixels.push_back(at::stack(rows));
    }
    return pixels.empty() ? at::zeros_like(q) : at::stack(pixels);
  }
};

}  // namespace halcyon::test
