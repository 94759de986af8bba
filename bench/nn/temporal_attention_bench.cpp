// SPDX-License-Identifier: Apache-2.0
// Attention of a pixel over its frames, causal, with rotary positions.
#include "halcyon/nn/temporal_attention.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <memory>

#include "bench/support/compare.h"
#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "halcyon/ops/linear/routes.h"
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

// Both products of the layer alone, each pass by one library: what no arrangement of the rest
// beats.
Case products(Shape s, bool backward, linear_detail::Library library) {
  using namespace linear_detail;
  torch::manual_seed(1);
  const auto rows = s.frames * s.pixels;
  const auto x = torch::randn({rows, s.width}), y = torch::randn({rows, s.width});
  const auto qkv = torch::randn({3 * s.width, s.width}), proj = torch::randn({s.width, s.width});
  const auto qkv_bias = torch::randn({3 * s.width}), proj_bias = torch::randn({s.width});
  const auto grad_qkv = torch::randn({rows, 3 * s.width});
  const auto out = std::make_shared<at::Tensor>();
  Case c;
  c.run = [=] {
    linear_detail::forward(x, qkv, qkv_bias, Activation::none, library);
    *out = linear_detail::forward(y, proj, proj_bias, Activation::none, library);
    if (!backward) return;
    input_gradient(y, proj, default_routes().input);
    weight_gradient(y, y, default_routes().weight);
    input_gradient(grad_qkv, qkv, default_routes().input);
    weight_gradient(grad_qkv, x, default_routes().weight);
  };
  c.flops = 8.0 * static_cast<double>(rows * s.width * s.width) * (backward ? 3 : 1);
  c.deviation = [=] { return deviation(*out, at::linear(y, proj, proj_bias), 2e-5); };
  return c;
}

void add_products(Shape s) {
  using linear_detail::Library;
  for (const auto library : {Library::aten, Library::onednn}) {
    if (library == Library::onednn && !linear_detail::has_onednn()) continue;
    for (const bool backward : {false, true}) {
      add(fmt::format("TemporalAttention/{}_products_T{}_X{}_C{}/{}/fp32",
                      library == Library::aten ? "aten" : "onednn", s.frames, s.pixels, s.width,
                      backward ? "fwd_bwd" : "fwd"),
          [=] { return products(s, backward, library); });
    }
  }
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
    if (s.linear) add_products(s);
  }
  return run(argc, argv);
}
