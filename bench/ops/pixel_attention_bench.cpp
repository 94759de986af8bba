// SPDX-License-Identifier: Apache-2.0
// The ragged attention by itself, and the yardstick: torch's fused attention over keys and values
// that are projected and padded beforehand.
#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "bench/support/observations.h"
#include "halcyon/ops/pixel_attention/packing.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kPixels = 3072, kRows = 65325, kToken = 32, kKvHeads = 2;

struct Heads {
  int64_t count, width;
};

// Scores and weighted sums of every observation with every head.
double attention_flops(Heads heads) {
  return 4.0 * static_cast<double>(kRows * heads.count * heads.width);
}

Layer ragged(Heads heads) {
  const auto cu = counts_to_cu_seqlens(ragged_counts(kPixels, kRows));
  const int64_t kv = kKvHeads * heads.width;
  const double size = 1 / std::sqrt(static_cast<double>(kToken));
  Layer layer;
  const auto q = layer.leaves["q"] = torch::randn({kPixels, heads.count, heads.width});
  const auto tokens = layer.leaves["tokens"] = torch::randn({kRows, kToken});
  const auto w_k = layer.leaves["k.weight"] = torch::randn({kv, kToken}) * size;
  const auto w_v = layer.leaves["v.weight"] = torch::randn({kv, kToken}) * size;
  const auto b_v = layer.leaves["v.bias"] = torch::randn({kv});
  layer.forward = [=] {
    return pixel_attention(q, tokens, w_k, w_v, cu, 0, kKvHeads, {}, {}, b_v);
  };
  layer.reference = [=](Named& p) {
    return reference::ragged_attention(p["q"], reference::linear(p, "k", p["tokens"]),
                                       reference::linear(p, "v", p["tokens"]), cu, kKvHeads);
  };
  // with the projections of the tokens to keys and values
  layer.flops = attention_flops(heads) + 4.0 * static_cast<double>(kRows * kToken * kv);
  return layer;
}

// The query heads of a key and value head stand where torch has the queries of a sequence. A pixel
// without observations sees one row of zeros.
Layer padded(Heads heads) {
  const auto cu = counts_to_cu_seqlens(ragged_counts(kPixels, kRows));
  auto valid = reference::padding(cu).valid;
  const auto empty = valid.any(1).logical_not();
  valid.select(1, 0).logical_or_(empty);
  const int64_t longest = valid.size(1), group = heads.count / kKvHeads;
  const auto rows = [&] { return torch::randn({kPixels, kKvHeads, longest, heads.width}); };
  Layer layer;
  const auto q = layer.leaves["q"] = torch::randn({kPixels, kKvHeads, group, heads.width});
  const auto k = layer.leaves["k"] = rows();
  const auto v = layer.leaves["v"] = rows().masked_fill(empty.view({-1, 1, 1, 1}), 0);
  const auto mask = valid.view({kPixels, 1, 1, longest});
  layer.forward = [=] { return at::scaled_dot_product_attention(q, k, v, mask); };
  layer.reference = [=](Named& p) {
    return reference::attention(p["q"], p["k"], p["v"], valid.unsqueeze(1));
  };
  layer.flops = attention_flops(heads);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Heads heads : {Heads{32, 16}, Heads{64, 32}}) {
    const auto shape = fmt::format("/3072px_{}q2kv{}", heads.count, heads.width);
    add_layer("pixel_attention" + shape, [=] { return ragged(heads); });
    add_layer("padded_sdpa" + shape, [=] { return padded(heads); });
  }
  return run(argc, argv);
}
