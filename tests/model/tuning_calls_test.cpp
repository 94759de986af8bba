// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/tuning_calls.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>

#include "halcyon/base/error.h"
#include "halcyon/model/healda.h"
#include "halcyon/ops/tuning/autotuner.h"

namespace halcyon {
namespace {

using Problems = std::set<std::string>;

HealDAConfig small() {
  HealDAConfig c;
  c.out_channels = 3;
  c.hidden_size = 64;
  c.num_layers = 3;
  c.num_heads = 2;
  c.level_in = 3;
  c.level_model = 2;
  c.time_length = 2;
  c.pixel_attn_n_q_heads = 16;
  c.pixel_attn_n_kv_heads = 1;
  c.pixel_attn_head_dim = 8;
  return c;
}

// What f meets; nothing is known before.
template <class F>
Problems met(const F& f) {
  tuning::forget_choices();
  use_autotuner({true, false, 0, 1}, {true, false, 0, 1});
  f();
  disable_autotuner();
  Problems problems;
  for (const auto& c : tuning::chosen()) problems.insert(c.operation + ": " + c.problem);
  return problems;
}

at::Tensor call(HealDA& model, int64_t batch, int64_t rows) {
  const auto& c = model->config();
  const int64_t tokens = batch * c.time_length * model->pixels_model();
  const auto ids = torch::zeros({rows}, torch::kLong);
  const auto date = torch::zeros({batch, c.time_length});
  return model->forward(
      torch::randn({batch, c.in_channels, c.time_length, model->pixels_in()}),
      torch::zeros({batch}), date, date,
      prepare_obs_context(torch::randn({rows}), torch::randn({rows, c.obs_meta_dim}), ids, ids, ids,
                          torch::randint(tokens, {rows}, torch::kLong), tokens));
}

TEST(TuningCalls, MeetEveryProblemOfTrainingAndAnalyses) {
  int64_t done = 0, all = 0;
  const auto tuned = met([&] {
    make_tuning_calls(small(), {{2}, {10, 1000}, true}, [&](int64_t d, int64_t a) {
      done = d;
      all = a;
    });
  });
  EXPECT_EQ(done, 2);
  EXPECT_EQ(all, 2);
  const auto needed = met([] {
    HealDA model(small());  // all three blocks, other counts of observations
    for (const int64_t rows : {0, 77, 4000}) call(model, 2, rows).sum().backward();
    model->eval();
    const torch::NoGradGuard no_grad;
    call(model, 2, 321);
    model->prepare_inference();
    call(model, 2, 123);
  });
  EXPECT_GT(needed.size(), 10u);
  for (const auto& problem : needed) EXPECT_TRUE(tuned.contains(problem)) << problem;
}

TEST(TuningCalls, WithoutTrainingThereIsNoBackward) {
  const auto tuned = met([] { make_tuning_calls(small(), {{1, 4}, {10}, false}); });
  EXPECT_FALSE(tuned.empty());
  for (const auto& problem : tuned)
    EXPECT_EQ(problem.find("backward"), std::string::npos) << problem;
}

TEST(TuningCalls, RefuseWhatNoCallCanBe) {
  EXPECT_THROW(make_tuning_calls(small(), {{0}, {10}, false}), Error);
  EXPECT_THROW(make_tuning_calls(small(), {{1}, {-1}, false}), Error);
  auto none = small();
  none.num_layers = 0;
  EXPECT_THROW(make_tuning_calls(none, {}), Error);
}

}  // namespace
}  // namespace halcyon
