// SPDX-License-Identifier: Apache-2.0
// Observations to tokens, in production's widths.
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "halcyon/nn/obs_tokenizer.h"
#include "halcyon/ops/film/backends.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kMeta = 50, kType = 4, kChannel = 16, kPlatform = 8, kHidden = 64, kOut = 32;
constexpr int64_t kIds = 500;
constexpr double kEps = 1e-5;

// Two matrix products, and the modulation.
constexpr double kFlopsPerObservation =
    2 * (kMeta + kType + kChannel + kPlatform) * kHidden + 2 * kHidden * 2 * kOut + 2 * kOut;

Layer film(int64_t rows) {
  ObsTokenizerFiLMOptions options;
  options.meta_dim = kMeta;
  options.out_dim = kOut;
  options.obs_type_embed_dim = kType;
  options.channel_embed_dim = kChannel;
  options.platform_embed_dim = kPlatform;
  options.hidden_dim = kHidden;
  ObsTokenizerFiLM module(options);
  std::vector<at::Tensor> ids;
  ids.reserve(3);
  for (int i = 0; i < 3; ++i) ids.push_back(torch::randint(kIds, {rows}, torch::kLong));

  Layer layer;
  layer.leaves = parameters_of(*module);
  const auto obs = layer.leaves["obs"] = torch::randn({rows});
  const auto meta = layer.leaves["float_metadata"] = torch::randn({rows, kMeta});
  layer.forward = [=]() mutable { return module->forward(obs, meta, ids[0], ids[1], ids[2]); };
  layer.reference = [=](Named& p) {
    return film_detail::composed(
        {{p["obs"], p["float_metadata"], p["cond_mlp.0.weight"], p["cond_mlp.0.bias"],
          p["cond_mlp.1.weight"], p["cond_mlp.1.bias"], p["cond_mlp.3.weight"],
          p["cond_mlp.3.bias"], p["embed_table.weight"], p["channel_embedding.weight"],
          p["platform_embedding.weight"]},
         ids,
         kEps});
  };
  layer.flops = kFlopsPerObservation * static_cast<double>(rows);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add_layer("ObsTokenizerFiLM/100k", [] { return film(100000); });
  return run(argc, argv);
}
