// SPDX-License-Identifier: Apache-2.0
// PixelCrossAttention: the projections around the ragged attention included.
#include "halcyon/nn/cross_attention.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "bench/support/observations.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kToken = 32, kKvHeads = 2;

struct Shape {
  int64_t pixels, rows, hidden, heads, head_width;
};

Layer cross_attention(Shape s) {
  PixelCrossAttention module(PixelCrossAttentionOptions{s.hidden, kToken, s.heads, kKvHeads,
                                                        s.head_width, /*use_proj_bias=*/true});
  const auto counts = ragged_counts(s.pixels, s.rows);
  const auto cu = counts_to_cu_seqlens(counts);
  const auto longest = counts.max().item<int64_t>();
  Layer layer;
  layer.leaves = parameters_of(*module);
  const auto h = layer.leaves["h"] = torch::randn({1, 1, s.pixels, s.hidden});
  const auto tokens = layer.leaves["tokens"] = torch::randn({s.rows, kToken});
  layer.forward = [=]() mutable { return module->forward(h, tokens, cu, longest); };
  layer.reference = [=](Named& p) {
    return reference::cross_attention(p, "", p["h"], p["tokens"], cu, s.heads, kKvHeads);
  };
  // q_proj and out_proj; k_proj and v_proj; scores and weighted sums
  const int64_t width = s.heads * s.head_width;
  layer.flops =
      4.0 * static_cast<double>(s.pixels * s.hidden * width +
                                s.rows * kToken * kKvHeads * s.head_width + s.rows * width);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Shape s : {Shape{3072, 65325, 256, 32, 16}, Shape{3072, 65325, 512, 64, 32},
                        Shape{192, 3639, 256, 32, 16}, Shape{192, 3639, 512, 64, 32},
                        Shape{384, 7278, 512, 64, 32}, Shape{768, 14556, 512, 64, 32}}) {
    add_layer(fmt::format("PixelCrossAttention/{}px_C{}_{}q2kv{}", s.pixels, s.hidden, s.heads,
                          s.head_width),
              [=] { return cross_attention(s); });
  }
  return run(argc, argv);
}
