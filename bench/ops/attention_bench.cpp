// SPDX-License-Identifier: Apache-2.0
// Attention among all tokens with normalised queries and keys, beside the operators it stands for:
// RMS norms and torch's flash attention.
#include "halcyon/ops/attention/attention.h"

#include <ATen/autocast_mode.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "halcyon/ops/rms_norm.h"

namespace halcyon::bench {
namespace {

struct Shape {
  int64_t batch, tokens, heads, width;
};

at::Tensor by_operators(const Named& p) {
  const auto parts = p.at("qkv").unbind(2);
  const auto q = rms_norm(parts[0], p.at("wq"), 1e-6), k = rms_norm(parts[1], p.at("wk"), 1e-6);
  const auto heads = [](const at::Tensor& t) { return t.transpose(1, 2); };
  return heads(at::scaled_dot_product_attention(heads(q), heads(k), heads(parts[2])));
}

Layer layer_of(Shape s, bool aten) {
  Layer layer;
  auto& p = layer.leaves;
  p["qkv"] = torch::randn({s.batch, s.tokens, 3, s.heads, s.width});
  p["wq"] = torch::rand({s.width}) + 0.5;
  p["wk"] = torch::rand({s.width}) + 0.5;
  layer.reference = [](Named& q) { return by_operators(q); };
  layer.forward = [aten, leaves = p] {
    if (!aten)
      return self_attention(leaves.at("qkv"), QkNorm{leaves.at("wq"), leaves.at("wk"), 1e-6});
    auto q = leaves;  // as the linear layer gives it under autocast
    if (at::autocast::is_autocast_enabled(at::kCPU)) q["qkv"] = q["qkv"].to(at::kBFloat16);
    return by_operators(q);
  };
  layer.flops = 4.0 * static_cast<double>(s.batch * s.heads * s.tokens * s.tokens * s.width);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Shape s : {Shape{4, 768, 8, 64}, Shape{1, 3072, 8, 64}, Shape{1, 12288, 2, 96}}) {
    for (const bool aten : {false, true}) {
      add_layer(fmt::format("attention/{}x{}_H{}_d{}{}", s.batch, s.tokens, s.heads, s.width,
                            aten ? "_aten" : ""),
                [=] { return layer_of(s, aten); });
    }
  }
  return run(argc, argv);
}
