// SPDX-License-Identifier: Apache-2.0
// Attention of pixels over their frames alone, causal with rotary positions, and the copy of q, k
// and v that its bandwidth is to be held against.
#include "halcyon/ops/temporal/temporal.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>

#include "bench/support/compare.h"
#include "bench/support/layer.h"
#include "halcyon/ops/rope.h"
#include "halcyon/ops/temporal/backends.h"

namespace halcyon::bench {
namespace {

struct Shape {
  int64_t frames, pixels, heads, head_dim;
  std::optional<int64_t> window = {};
};

at::Tensor random_qkv(Shape s) {
  return torch::randn({1, s.frames, s.pixels, 3, s.heads, s.head_dim});
}

// Pairs of frames that see one another.
double pairs(Shape s) {
  const auto t = static_cast<double>(s.frames);
  const double w = s.window ? static_cast<double>(std::min(*s.window, s.frames)) : t;
  return w * (w + 1) / 2 + (t - w) * w;
}

Layer layer_of(Shape s, bool linear) {
  Layer layer;
  const auto [cos, sin] = rope_tables(s.head_dim, s.frames);
  layer.leaves["qkv"] = random_qkv(s);
  const auto run = [=, c = cos, n = sin](const at::Tensor& qkv) {
    return temporal_attention(qkv, linear, true, s.window, c, n);
  };
  layer.forward = [=, qkv = layer.leaves["qkv"]] { return run(qkv); };
  layer.reference = [=, c = cos, n = sin](Named& p) {
    const auto& qkv = p.at("qkv");
    return temporal_detail::composed(
        {qkv.select(3, 0), qkv.select(3, 1), qkv.select(3, 2), linear, true, s.window, c, n});
  };
  const auto rows = static_cast<double>(s.pixels * s.heads * s.head_dim);
  layer.flops = 4 * pairs(s) * rows;
  layer.bytes = 4.0 * 4 * static_cast<double>(s.frames) * rows;
  // the backward reads q, k, v and a gradient and writes three
  layer.backward_bytes = 4.0 * 7 * static_cast<double>(s.frames) * rows;
  return layer;
}

Case copy_of(Shape s) {
  const auto from = random_qkv(s), to = torch::zeros_like(from);
  Case c;
  c.run = [=] { to.copy_(from); };
  c.bytes = 2.0 * static_cast<double>(from.nbytes());
  c.deviation = [=] { return difference(to, from); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Shape s :
       {Shape{4, 768, 8, 64}, Shape{8, 768, 8, 64}, Shape{16, 768, 8, 64}, Shape{64, 48, 8, 64},
        Shape{256, 12, 8, 64}, Shape{1024, 3, 8, 64}, Shape{1024, 3, 8, 64, 256}}) {
    const auto name = fmt::format("T{}_X{}_H{}x{}{}", s.frames, s.pixels, s.heads, s.head_dim,
                                  s.window ? fmt::format("_w{}", *s.window) : "");
    add(fmt::format("temporal/copy_{}/fwd/fp32", name), [=] { return copy_of(s); });
    for (const bool linear : {true, false}) {
      add_layer(fmt::format("temporal/{}_{}", linear ? "linear" : "softmax", name),
                [=] { return layer_of(s, linear); }, {true, false});
    }
  }
  return run(argc, argv);
}
