// SPDX-License-Identifier: Apache-2.0
// Attention of a pixel over its frames, causal, with rotary positions.
#include "halcyon/nn/temporal_attention.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "halcyon/ops/rope.h"

namespace halcyon::bench {
namespace {

struct Shape {
  int64_t frames, pixels, width, heads;
  bool linear;
};

Layer temporal_attention(Shape s) {
  TemporalAttentionOptions options;
  options.hidden_size = s.width;
  options.num_heads = s.heads;
  options.is_causal = true;
  options.linear_attention = s.linear;
  TemporalAttention module(options);
  const auto [cos, sin] = rope_tables(s.width / s.heads, s.frames);
  Layer layer;
  layer.leaves = parameters_of(*module);
  const auto x = layer.leaves["x"] = torch::randn({1, s.frames, s.pixels, s.width});
  layer.forward = [=, c = cos, s_ = sin]() mutable { return module->forward(x, c, s_); };
  layer.reference = [=](Named& p) {
    return reference::temporal_attention(p, "", p["x"], s.heads, s.linear);
  };
  // qkv and proj; scores and weighted sums of the frames that a frame may see
  layer.flops = 8.0 * static_cast<double>(s.frames * s.pixels * s.width * s.width) +
                2.0 * static_cast<double>(s.pixels * s.frames * (s.frames + 1) * s.width);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Shape s : {Shape{4, 768, 512, 8, true}, Shape{4, 768, 512, 8, false},
                        Shape{8, 768, 512, 8, true}, Shape{8, 768, 1536, 16, true}}) {
    add_layer(fmt::format("TemporalAttention/{}_T{}_X{}_C{}_H{}", s.linear ? "linear" : "softmax",
                          s.frames, s.pixels, s.width, s.heads),
              [=] { return temporal_attention(s); });
  }
  return run(argc, argv);
}
