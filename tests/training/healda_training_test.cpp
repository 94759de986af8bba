// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/training/trainer.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"
#include "tests/training/toy_healda.h"

namespace halcyon::training {
namespace {
using halcyon::test::TemporaryFolder;

const bool kOneThread = (at::set_num_threads(1), true);

TrainOutcome train(Task& task, const TemporaryFolder& folder, const std::string& more,
                   TrainOptions options = {}) {
  const auto node = config::parse(
      "{seed: 2, optimizer: {learning_rate: 3e-3}, schedule: {warmup: 10}, ema: {decay: 0.95}, "
      "checkpoints: {every: 10}, " +
          more + "}",
      "run.yaml", "", {"output=" + folder.path().string()});
  options.show_progress = false;
  Trainer trainer(task, TrainConfig::from(node), std::move(options));
  node.finish();
  return trainer.run();
}

TEST(HealDATraining, LearnsToMapFieldsFromObservations) {
  for (const std::string precision : {"fp32", "bf16"}) {
    const TemporaryFolder folder;
    const auto task = test::toy_healda();
    const auto outcome = train(*task, folder, "steps: 150, precision: " + precision);
    EXPECT_TRUE(outcome.finished);
    EXPECT_LT(outcome.scores.at("error"), 0.3) << precision;
  }
}

TEST(HealDATraining, LearnsWithoutBiasesInTheCrossAttention) {
  auto config = test::toy_config();
  config.pixel_attn_use_proj_bias = false;
  const TemporaryFolder folder;
  const auto outcome = train(*test::toy_healda(config), folder, "steps: 150");
  EXPECT_TRUE(outcome.finished);
  EXPECT_LT(outcome.scores.at("error"), 0.3);
}

TEST(HealDATraining, ResumesToTheSameBitsWithDropPath) {
  const TemporaryFolder whole, parts;
  const auto one = test::toy_healda(), two = test::toy_healda(), three = test::toy_healda();
  train(*one, whole, "steps: 20, accumulate: 2");
  int asked = 0;
  TrainOptions options;
  options.stop = [&] { return asked++ == 13; };
  EXPECT_EQ(train(*two, parts, "steps: 20, accumulate: 2", options).step, 13);
  train(*three, parts, "steps: 20, accumulate: 2");
  const auto a = read_safetensors(whole / "step-000000020.safetensors");
  const auto b = read_safetensors(parts / "step-000000020.safetensors");
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    EXPECT_TRUE(halcyon::test::identical(b.at(name), tensor)) << name;
  }
}

TEST(HealDATraining, ANaNObservationIsNamed) {
  struct Poisoned : test::LinearFields {
    Batch batch(const Draw& draw) override {
      Batch b = LinearFields::batch(draw);
      if (draw.step == 3) b.observations.obs[7] = std::nan("");
      return b;
    }
  };
  const TemporaryFolder folder;
  HealDA model(test::toy_config());
  SupervisedTask task(model.ptr(),
                      [model](const Batch& b) mutable {
                        return model->forward(b.x, b.t, b.second_of_day, b.day_of_year,
                                              b.observations);
                      },
                      std::make_shared<Poisoned>(), {});
  try {
    train(task, folder, "steps: 10");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::numerics);
    EXPECT_NE(std::string(e.what()).find("step 4: not finite first: observations (1 of 320"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace halcyon::training
