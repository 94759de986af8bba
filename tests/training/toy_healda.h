// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <memory>
#include <utility>

#include "halcyon/model/healda.h"
#include "halcyon/sphere/healpix.h"
#include "halcyon/training/batch.h"

// A HealDA of 48 tokens that learns to map smooth fields from a few observations.
namespace halcyon::training::test {

inline HealDAConfig toy_config() {
  HealDAConfig c;
  c.in_channels = 3;
  c.out_channels = 1;
  c.hidden_size = 32;
  c.num_layers = 2;
  c.num_heads = 2;
  c.mlp_ratio = 2;
  c.level_in = 2;
  c.level_model = 1;
  c.time_length = 2;
  c.condition_embed_dim = 16;
  c.noise_channels = 16;
  c.drop_path = 0.2;
  c.drop_path_zero_first_n_blocks = 1;
  c.obs_meta_dim = 3;
  c.obs_token_dim = 16;
  c.obs_film_hidden_dim = 32;
  c.pixel_attn_n_q_heads = 16;
  c.pixel_attn_n_kv_heads = 1;
  c.pixel_attn_head_dim = 8;
  return c;
}

// Fields a + b.r on the sphere, r the unit vector, with random a and b that last two frames.
class LinearFields : public SampleSource {
 public:
  static constexpr int64_t kBatch = 2, kFrames = 2, kFine = 192, kCoarse = 48, kObs = 80;

  LinearFields() {
    const at::Tensor pixels = torch::arange(kFine);
    const auto [lon, lat] = healpix::pix2ang(2, pixels);
    const at::Tensor a = lon.deg2rad(), b = lat.deg2rad();
    points_ = torch::stack({b.cos() * a.cos(), b.cos() * a.sin(), b.sin()}, 1).to(torch::kFloat);
    parents_ = healpix::parent(2, pixels);
  }

  Batch batch(const Draw& draw) override { return make(draw.random()); }

  Batch make(Random random) const {
    const at::Tensor mean = random.normal_tensor({kBatch, 1, 1, 1}).to(torch::kFloat);
    const at::Tensor slope = random.normal_tensor({kBatch, 3}).to(torch::kFloat);
    const at::Tensor truth = (mean + slope.matmul(points_.t()).view({kBatch, 1, 1, kFine}))
                                 .expand({kBatch, 1, kFrames, kFine});
    const int64_t n = kBatch * kFrames * kObs;
    const at::Tensor site = (random.uniform_tensor({n}) * kFine).to(torch::kLong);
    const at::Tensor frame = torch::arange(kBatch * kFrames).repeat_interleave(kObs);
    const at::Tensor value =
        truth.select(1, 0).reshape({kBatch * kFrames, kFine}).index({frame, site});
    const at::Tensor zero = torch::zeros({n}, torch::kLong);
    Batch batch;
    batch.x = points_.t().view({1, 3, 1, kFine}).expand({kBatch, 3, kFrames, kFine}).contiguous();
    batch.t = torch::zeros({kBatch});
    batch.second_of_day = batch.day_of_year = torch::zeros({kBatch, kFrames});
    batch.observations =
        prepare_obs_context(value, points_.index({site}), zero, zero, zero,
                            frame * kCoarse + parents_.index({site}), kBatch * kFrames * kCoarse);
    batch.target = truth;
    return batch;
  }

 private:
  at::Tensor points_, parents_;
};

inline std::unique_ptr<SupervisedTask> toy_healda(const HealDAConfig& config = toy_config()) {
  torch::manual_seed(5);
  HealDA model(config);
  const auto source = std::make_shared<LinearFields>();
  const Forward forward = [model](const Batch& b) mutable {
    return model->forward(b.x, b.t, b.second_of_day, b.day_of_year, b.observations);
  };
  const Validate validate = [forward, source] {
    at::Tensor error = torch::zeros({}), variance = torch::zeros({});
    for (uint64_t i = 0; i < 10; ++i) {
      const Batch b = source->make(Random(1234, {i}));
      error += (forward(b) - b.target).to(torch::kFloat).square().mean();
      variance += b.target.square().mean();
    }
    return Scores{{"error", (error / variance).item<double>()}};
  };
  return std::make_unique<SupervisedTask>(model.ptr(), forward, source,
                                          LossOptions{.kind = LossKind::mse}, validate);
}

}  // namespace halcyon::training::test
