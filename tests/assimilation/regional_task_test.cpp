// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/regional_task.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "halcyon/base/error.h"
#include "halcyon/model/checkpoint.h"
#include "tests/assimilation/small_world.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

class RegionalTaskTest : public testing::Test {
 protected:
  static config::Node run(const std::vector<std::string>& overrides = {}) {
    return config::parse(
        "simulation:\n"
        "  networks:\n"
        "    box: {west: 240, east: 275, south: 25, north: 50}\n"
        "    stations: city_stations.csv\n"
        "    fewest: 5\n"
        "    most: 20\n"
        "  focus: {west: 245, east: 270, south: 30, north: 45}\n"
        "batch: {networks: 2, fields: 3}\n"
        "validation_samples: 24\n",
        "run.yaml", world().folder(), overrides);
  }
  static const test::SmallWorld& world() {
    static const test::SmallWorld small;
    return small;
  }
  static HealDA model() { return load_checkpoint(world().file("weights.safetensors")); }
};

TEST_F(RegionalTaskTest, LossIsFiniteAndAFunctionOfTheDraw) {
  const auto system = world().system();
  const auto config = run();
  RegionalTask task(system, model(), config, {});
  config.finish();
  const auto first = task.loss({.seed = 1, .step = 4});
  EXPECT_EQ(first.samples, 6);
  EXPECT_TRUE(first.value.isfinite().item<bool>());
  EXPECT_GT(first.value.item<float>(), 0);
  EXPECT_TRUE(test::identical(task.loss({.seed = 1, .step = 4}).value, first.value));
  EXPECT_FALSE(task.loss({.seed = 1, .step = 5}).value.equal(first.value));
  first.value.backward();
  double gradients = 0;
  for (const auto& parameter : task.module().parameters()) {
    if (!parameter.grad().defined()) continue;
    EXPECT_TRUE(parameter.grad().isfinite().all().item<bool>());
    gradients += parameter.grad().abs().sum().item<double>();
  }
  EXPECT_GT(gradients, 0);
}

TEST_F(RegionalTaskTest, ANetworkThatSaysNothingHasTheLossOfClimatology) {
  const auto system = world().system();
  auto silent = model();
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : silent->parameters()) parameter.zero_();
  }
  RegionalTask task(system, silent, run({"batch.networks=40", "batch.truth_share=1"}),
                    {.kind = training::LossKind::mse});
  const auto loss = task.loss({.seed = 2}).value.item<double>();
  EXPECT_NEAR(loss, 1, 0.35);  // in units of the climatological variance; 40 networks
}

TEST_F(RegionalTaskTest, ScoresTheTimesKeptForValidation) {
  const auto with = world().system({"split.training.0.start=2013-02-01",
                                    "split.validation=[{start: 2013-01-01, end: 2013-01-20}]"});
  RegionalTask task(with, model(), run(), {});
  const auto scores = task.validate();
  ASSERT_EQ(scores.size(), 3u);
  for (const char* name : {"rmse", "rmse_stations", "rmse_other"}) {
    EXPECT_GT(scores.at(name), 0) << name;
    EXPECT_LT(scores.at(name), 100) << name;
  }
  EXPECT_EQ(task.validate(), scores);

  const auto without = world().system();
  EXPECT_TRUE(RegionalTask(without, model(), run(), {}).validate().empty());
}

TEST_F(RegionalTaskTest, ConfigurationErrorsTellTheLine) {
  const auto system = world().system();
  const auto message = [&](const std::string& override_) -> std::string {
    try {
      RegionalTask(system, model(), run({override_}), {});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::configuration) << override_;
      return e.what();
    }
    return "no error";
  };
  for (const char* bad :
       {"batch.networks=0", "batch.truth_share=2", "simulation.networks.most=4",
        "simulation.networks.largest_error=0.1", "simulation.networks.stations=/no/such.csv",
        "simulation.focus.north=95", "simulation.networks.box.west=300"}) {
    const std::string key(bad, std::string_view(bad).find('='));
    const auto said = message(bad);
    EXPECT_NE(said.find(key.substr(key.rfind('.') + 1)), std::string::npos) << bad << ": " << said;
  }
}

}  // namespace
}  // namespace halcyon::assimilation
