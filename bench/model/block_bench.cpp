// SPDX-License-Identifier: Apache-2.0
// One layer of the model, with and without observations.
#include "halcyon/model/block.h"

#include <torch/torch.h>

#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "bench/support/observations.h"
#include "halcyon/ops/rope.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kFrames = 4, kPixels = 768, kWidth = 512, kHeads = 8, kCondition = 128;
constexpr int64_t kRows = 65325, kToken = 32, kQueryHeads = 64, kKvHeads = 2, kHeadWidth = 32;
constexpr double kEps = 1e-6;

VideoDiTBlockOptions options(bool cross) {
  VideoDiTBlockOptions o;
  o.hidden_size = kWidth;
  o.num_heads = kHeads;
  o.condition_embed_dim = kCondition;
  o.temporal_attention = o.is_causal = true;
  o.adaln_zero_init = false;  // else every branch would be multiplied by zero
  o.attn_kwargs = {"RMSNorm", false};
  if (cross) {
    o.cross_attention =
        pixel_cross_attention({kWidth, kToken, kQueryHeads, kKvHeads, kHeadWidth, true});
  }
  return o;
}

// h plus a gated branch of the modulated norm of h; m holds shift, scale and gate from `first` on.
template <class Branch>
at::Tensor added(const at::Tensor& h, const std::vector<at::Tensor>& m, size_t first,
                 Branch&& branch) {
  const auto normed = at::layer_norm(h, {kWidth}, {}, {}, kEps);
  return h + m[first + 2] * branch(m[first] + normed * (1 + m[first + 1]));
}

at::Tensor written_out(Named& p, const at::Tensor& cu) {
  const auto modulation = [&](const std::string& key, int64_t chunks) {
    return reference::linear(p, key + ".modulation.1", at::silu(p["c"]))
        .view({1, 1, 1, -1})
        .chunk(chunks, -1);
  };
  const auto m = modulation("norm1_modulation", 6);
  auto h = added(p["h"], m, 0, [&](const at::Tensor& x) {
    return reference::spatial_attention(p, "attention.", x.flatten(0, 1), kHeads).view(x.sizes());
  });
  if (cu.defined()) {
    h = added(h, modulation("cross_attn_modulation", 3), 0, [&](const at::Tensor& x) {
      return reference::cross_attention(p, "cross_attention.", x, p["tokens"], cu, kQueryHeads,
                                        kKvHeads);
    });
  }
  h = added(h, modulation("temporal_attn_modulation", 3), 0, [&](const at::Tensor& x) {
    return reference::temporal_attention(p, "temporal_attention.", x, kHeads, true);
  });
  return added(h, m, 3, [&](const at::Tensor& x) {
    const auto hidden = at::gelu(reference::linear(p, "linear.layers.0", x), "tanh");
    return reference::linear(p, "linear.layers.2", hidden);
  });
}

// Matrix products: qkv and proj twice, the MLP of four times the width, the attention among pixels,
// among frames and to the observations.
double flops(bool cross) {
  constexpr double tokens = kFrames * kPixels, width = kWidth;
  constexpr double attended = kQueryHeads * kHeadWidth, kv = kKvHeads * kHeadWidth;
  const double own =
      tokens * (32 * width * width + 4 * kPixels * width + 2 * (kFrames + 1) * width);
  return own + (cross ? 4 * (tokens * width * attended + kRows * (kToken * kv + attended)) : 0);
}

Layer block(bool cross) {
  VideoDiTBlock module(options(cross));
  const auto [cos, sin] = rope_tables(kWidth / kHeads, kFrames);
  const RopeTables tables{cos, sin};
  Layer layer;
  layer.leaves = parameters_of(*module);
  const auto h = layer.leaves["h"] = torch::randn({1, kFrames, kPixels, kWidth});
  const auto c = layer.leaves["c"] = torch::randn({1, kCondition});
  at::Tensor cu;
  std::any kwargs;
  if (cross) {
    const auto counts = ragged_counts(kFrames * kPixels, kRows);
    cu = counts_to_cu_seqlens(counts);
    const auto tokens = layer.leaves["tokens"] = torch::randn({kRows, kToken});
    kwargs = PixelCrossAttentionKwargs{tokens, cu, counts.max().item<int64_t>()};
  }
  layer.forward = [=]() mutable { return module->forward(h, c, {}, kwargs, tables); };
  layer.reference = [=](Named& p) { return written_out(p, cu); };
  layer.flops = flops(cross);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add_layer("VideoDiTBlock/T4_X768_C512_H8", [] { return block(false); });
  add_layer("VideoDiTBlock/T4_X768_C512_H8_cross", [] { return block(true); });
  return run(argc, argv);
}
