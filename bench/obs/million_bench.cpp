// SPDX-License-Identifier: Apache-2.0
// A million observations all the way: sorted by pixel, made tokens, attended to by the 98 304
// pixels of a production sample (eight frames at level 5), with production's heads.
#include <torch/torch.h>

#include "bench/support/autocast.h"
#include "bench/support/compare.h"
#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "bench/support/observations.h"
#include "halcyon/nn/obs_tokenizer.h"
#include "halcyon/ops/film/backends.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "halcyon/ops/pixel_attention/pixel_attention.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kRows = 1000000, kPixels = 98304, kMeta = 50, kIds = 500, kToken = 32;
constexpr int64_t kHeads = 64, kKvHeads = 2, kWidth = 32, kKv = kKvHeads * kWidth;
constexpr int64_t kSampled = 500;  // pixels that are compared

ObsTokenizerFiLM tokenizer() {
  ObsTokenizerFiLMOptions options;
  options.meta_dim = kMeta;
  options.out_dim = kToken;
  options.channel_embed_dim = 16;
  options.platform_embed_dim = 8;
  options.hidden_dim = 64;
  return ObsTokenizerFiLM(options);
}

struct Chain {
  ObsTokenizerFiLM film = tokenizer();
  at::Tensor obs = torch::randn({kRows}), meta = torch::randn({kRows, kMeta});
  at::Tensor type = torch::randint(kIds, {kRows}), channel = torch::randint(kIds, {kRows});
  at::Tensor platform = torch::randint(kIds, {kRows});
  at::Tensor flat_idx = scattered(ragged_counts(kPixels, kRows));
  at::Tensor q = torch::randn({kPixels, kHeads, kWidth});
  at::Tensor w_k = torch::randn({kKv, kToken}) / std::sqrt(double(kToken));
  at::Tensor w_v = torch::randn({kKv, kToken}) / std::sqrt(double(kToken));
  at::Tensor b_v = torch::randn({kKv});
  at::Tensor grad_out = torch::randn({kPixels, kHeads, kWidth});
  ObsContext context;
  at::Tensor out;

  Chain() {
    for (auto* ids : {&type, &channel, &platform}) *ids = ids->to(torch::kLong);
  }
  std::vector<at::Tensor> leaves() const {
    auto all = film->parameters();
    all.insert(all.end(), {obs, meta, q, w_k, w_v, b_v});
    return all;
  }
  void forward() {
    context = prepare_obs_context(obs, meta, type, channel, platform, flat_idx, kPixels);
    const auto tokens = film->forward(context.obs, context.float_metadata, context.obs_type,
                                      context.channel, context.platform);
    out = pixel_attention(q, tokens, w_k, w_v, context.cu_seqlens_k, context.max_seqlen_k, kKvHeads,
                          {}, {}, b_v, false, context.group_map);
  }
  void forward_and_backward() {
    for (auto& leaf : leaves()) leaf.mutable_grad().reset();
    forward();
    out.backward(grad_out);
  }
};

// The first pixels' outputs, and the gradients of their queries and observations.
double off(Chain& chain, bool backward) {
  const torch::AutoGradMode mode(backward);
  const auto order = std::get<1>(at::sort(chain.flat_idx, std::optional<bool>(true), /*dim=*/0));
  const auto cu = at::bincount(chain.flat_idx, {}, kPixels).slice(0, 0, kSampled).cumsum(0);
  const auto rows = order.slice(0, 0, cu[-1].item<int64_t>());
  const auto pick = [&](const at::Tensor& x) { return x.detach().index_select(0, rows); };
  auto p = parameters_of(*chain.film);
  const auto obs = pick(chain.obs).requires_grad_(backward);
  const auto q = chain.q.detach().slice(0, 0, kSampled).clone().requires_grad_(backward);
  const auto tokens = film_detail::composed(
      {{obs, pick(chain.meta), p["cond_mlp.0.weight"], p["cond_mlp.0.bias"], p["cond_mlp.1.weight"],
        p["cond_mlp.1.bias"], p["cond_mlp.3.weight"], p["cond_mlp.3.bias"], p["embed_table.weight"],
        p["channel_embedding.weight"], p["platform_embedding.weight"]},
       {pick(chain.type), pick(chain.channel), pick(chain.platform)},
       1e-5});
  const auto expected = reference::ragged_attention(
      q, at::linear(tokens, chain.w_k), at::linear(tokens, chain.w_v, chain.b_v),
      at::cat({at::zeros({1}, cu.options()), cu}), kKvHeads);
  double worst = deviation(chain.out.slice(0, 0, kSampled), expected, kFp32.out);
  if (!backward) return worst;
  const auto grads =
      torch::autograd::grad({expected}, {obs, q}, {chain.grad_out.slice(0, 0, kSampled)});
  worst = std::max(worst, deviation(pick(chain.obs.grad()), grads[0], kFp32.gradient));
  return std::max(worst, deviation(chain.q.grad().slice(0, 0, kSampled), grads[1], kFp32.gradient));
}

// The tokenizer's two products, the projections to keys and values, scores and weighted sums.
constexpr double kFlopsPerObservation =
    2 * 64 * (kMeta + 28) + 4 * 64 * kToken + 4 * kToken * kKv + 4 * kHeads * kWidth;

Case chain_case(bool backward) {
  torch::manual_seed(1);
  const auto chain = std::make_shared<Chain>();
  for (auto& leaf : chain->leaves()) leaf.requires_grad_(backward);
  Case c;
  c.run = [=] {
    const torch::AutoGradMode mode(backward);
    backward ? chain->forward_and_backward() : chain->forward();
  };
  c.flops = kFlopsPerObservation * kRows * (backward ? 3 : 1);
  c.bytes = (backward ? 4.0 : 2.0) * kPixels * kHeads * kWidth * sizeof(float);  // queries, outputs
  c.deviation = [=] { return off(*chain, backward); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add("observations_to_pixels/1M/fwd/fp32", [] { return chain_case(false); });
  add("observations_to_pixels/1M/fwd_bwd/fp32", [] { return chain_case(true); });
  return run(argc, argv);
}
