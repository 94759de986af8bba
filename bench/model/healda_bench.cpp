// SPDX-License-Identifier: Apache-2.0
// The whole model, small enough for a CPU. Its layers are compared with readable references in
// their own programs; here the model is compared with itself in double, on a coarser grid.
#include "halcyon/model/healda.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/model/healda_flops.h"
#include "bench/support/layer.h"
#include "bench/support/observations.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon::bench {
namespace {

constexpr int64_t kIds = 500;
constexpr int kLevel = 4, kCoarserLevel = 2;
constexpr Bounds kWholeFp32{1e-4, 1e-3}, kWholeBf16{5e-2, 1e-1};

HealDAConfig config(int level) {
  HealDAConfig c;
  c.hidden_size = 256;
  c.num_layers = 4;
  c.num_heads = 8;
  c.level_in = level + 1;
  c.level_model = level;
  c.time_length = 4;
  c.pixel_attn_n_q_heads = 32;
  c.pixel_attn_head_dim = 16;
  return c;
}

struct Inputs {
  at::Tensor x, t, second, day;
  ObsContext observations;
};

Inputs make_inputs(const HealDAConfig& c, int64_t rows) {
  const int64_t fine = healpix::npix(static_cast<int>(c.level_in));
  const int64_t pixels = c.time_length * healpix::npix(static_cast<int>(c.level_model));
  const auto ids = [&] { return torch::randint(kIds, {rows}, torch::kLong); };
  const auto flat = rows > 0 ? scattered(ragged_counts(pixels, rows)) : ids();
  return {torch::randn({1, c.in_channels, c.time_length, fine}), torch::zeros({1}),
          torch::rand({1, c.time_length}) * 86400, torch::rand({1, c.time_length}) * 365,
          prepare_obs_context(torch::randn({rows}), torch::randn({rows, c.obs_meta_dim}), ids(),
                              ids(), ids(), flat, pixels)};
}

at::Tensor call(HealDA& model, const Inputs& in, at::ScalarType type = at::kFloat) {
  return model->forward(in.x.to(type), in.t.to(type), in.second, in.day, in.observations.to(type));
}

// Without dropout, and without the zeros that would hide every branch.
HealDA make_model(const HealDAConfig& c) {
  HealDA model(c);
  model->eval();
  const torch::NoGradGuard no_grad;
  for (auto& p : model->parameters())
    if (p.count_nonzero().item<int64_t>() == 0) p.normal_(0, 0.1);
  return model;
}

double flops(const HealDAConfig& c, int64_t rows) {
  double sum = 0;
  for (const auto& [part, count] : healda_flops(c, rows)) sum += count;
  return sum;
}

Layer whole(int level, int64_t rows) {
  const auto c = config(level);
  auto model = make_model(c);
  const auto in = make_inputs(c, rows);
  Layer layer;
  layer.leaves = parameters_of(*model);
  layer.forward = [=]() mutable { return call(model, in); };
  layer.reference = [=](Named& p) {
    HealDA twin(c);
    twin->eval();
    twin->to(torch::kDouble);
    for (auto& item : twin->named_parameters())
      item.value().set_data(p.at(item.key()).detach().to(torch::kDouble));
    p = parameters_of(*twin);
    return call(twin, in, torch::kDouble);
  };
  layer.flops = flops(c, rows);
  return layer;
}

Case timed(int64_t rows, bool backward, at::ScalarType type) {
  torch::manual_seed(1);
  const Bounds bounds = type == at::kBFloat16 ? kWholeBf16 : kWholeFp32;
  auto c = layer_case(whole(kLevel, rows), backward, type, bounds);
  c.deviation = [=] {
    constexpr int64_t kFewer = int64_t{1} << 2 * (kLevel - kCoarserLevel);
    const auto small = layer_case(whole(kCoarserLevel, rows / kFewer), backward, type, bounds);
    small.run();
    return small.deviation();
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const int64_t rows : {0, 20000}) {
    const std::string name = rows == 0 ? "HealDA/C256_L4_no_obs" : "HealDA/C256_L4_20k_obs";
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const bool backward : {false, true}) {
        add(fmt::format("{}/{}/{}", name, backward ? "fwd_bwd" : "fwd",
                        type == at::kFloat ? "fp32" : "bf16"),
            [=] { return timed(rows, backward, type); });
      }
    }
  }
  return run(argc, argv);
}
