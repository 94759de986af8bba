// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/simulated_batches.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/assimilation/small_world.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

using test::identical;
using training::Draw;

class SimulatedBatchesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    world_ = new test::SmallWorld;
    system_ = new RegionalSystem(world_->system());
  }
  static void TearDownTestSuite() {
    delete system_;
    delete world_;
  }

  static SimulatedBatches batches() {
    std::vector<int64_t> times;
    const auto anomalies = system_->anomalies(state::Purpose::training, times);
    SeasonalEnsembleOptions fields;
    fields.ages = system_->ages;
    NetworkSamplerOptions networks;
    networks.box = {240, 275, 25, 50};
    networks.stations = {{30, 250}, {35, 260}, {40, 245}};
    networks.fewest = 5;
    networks.most = 30;
    return {*system_,
            SeasonalEnsemble(system_->grid, times, anomalies, fields),
            networks,
            {245, 270, 30, 45}};
  }

  // The mean of ((observation - H target) / error_sd)^2 over the reports of the analysis time.
  static double squared_departure(const SimulatedBatch& batch) {
    double sum = 0, count = 0;
    for (std::size_t b = 0; b < batch.observations.size(); ++b) {
      for (const auto& d : batch.observations[b].observations) {
        if (d.age != 0) continue;
        const auto h = bilinear_to_points(system_->grid, at::tensor({d.lon}, at::kDouble),
                                          at::tensor({d.lat}, at::kDouble));
        const auto there = h.apply(batch.target[static_cast<int64_t>(b)]).item<double>();
        sum += std::pow((d.value - there) / d.error_sd, 2);
        ++count;
      }
    }
    return sum / count;
  }

  static inline const test::SmallWorld* world_ = nullptr;
  static inline const RegionalSystem* system_ = nullptr;
};

void expect_equal(const SimulatedBatch& a, const SimulatedBatch& b) {
  EXPECT_TRUE(identical(a.target, b.target));
  EXPECT_TRUE(identical(a.weights, b.weights));
  EXPECT_EQ(a.stations, b.stations);
  ASSERT_EQ(a.observations.size(), b.observations.size());
  for (std::size_t i = 0; i < a.observations.size(); ++i) {
    EXPECT_EQ(a.observations[i].time, b.observations[i].time);
    ASSERT_EQ(a.observations[i].observations.size(), b.observations[i].observations.size());
    for (std::size_t k = 0; k < a.observations[i].observations.size(); ++k) {
      const auto &x = a.observations[i].observations[k], &y = b.observations[i].observations[k];
      EXPECT_EQ(x.value, y.value);
      EXPECT_EQ(x.lat, y.lat);
      EXPECT_EQ(x.age, y.age);
    }
  }
}

TEST_F(SimulatedBatchesTest, TheSameStepIsTheSameBatch) {
  const auto made = batches();
  const SimulatedBatchOptions options{.networks = 3, .fields = 2};
  const Draw draw{.seed = 5, .step = 17};
  const auto batch = made.draw(draw, options);
  expect_equal(made.draw(draw, options), batch);
  expect_equal(batches().draw(draw, options), batch);
  EXPECT_FALSE(made.draw({.seed = 5, .step = 18}, options).target.equal(batch.target));
  EXPECT_FALSE(made.draw({.seed = 5, .step = 17, .micro = 1, .micros = 2}, options)
                   .target.equal(batch.target));
  EXPECT_FALSE(made.draw({.seed = 6, .step = 17}, options).target.equal(batch.target));
}

TEST_F(SimulatedBatchesTest, ShapesAndUnits) {
  const auto batch = batches().draw({.seed = 1}, {.networks = 20, .fields = 3});
  const int64_t points = system_->grid.size();
  EXPECT_EQ(batch.target.sizes(), (std::vector<int64_t>{60, points}));
  EXPECT_EQ(batch.target.scalar_type(), at::kFloat);
  EXPECT_EQ(batch.observations.size(), 60u);
  EXPECT_EQ(batch.stations.size(), 60u);
  EXPECT_TRUE(batch.target.isfinite().all().item<bool>());
  EXPECT_TRUE(batch.weights.gt(0).all().item<bool>());
  // the weighted squared error of the climatology is one
  const auto one = (batch.weights * system_->spread.square()).sum(1);
  EXPECT_TRUE(test::near(one, at::ones({60}), 1e-5));
  for (const auto& set : batch.observations) {
    EXPECT_TRUE(system_->split.allows(state::Purpose::training, set.time));
    for (const auto& d : set.observations) {
      EXPECT_TRUE(std::isfinite(d.value));
      EXPECT_GT(d.climatological_sd, 0);
      EXPECT_TRUE(d.age == 0 || d.age == 6);
    }
  }
}

TEST_F(SimulatedBatchesTest, ObservationsAreTheTruthPlusTheirErrors) {
  const auto batch = batches().draw({.seed = 2}, {.networks = 40, .fields = 4, .truth_share = 1});
  EXPECT_NEAR(squared_departure(batch), 1, 0.1);  // some 2000 reports
}

TEST_F(SimulatedBatchesTest, PosteriorMeansFitTheObservationsCloser) {
  const auto made = batches();
  const SimulatedBatchOptions truth{.networks = 40, .fields = 4, .truth_share = 1}, mean = {40, 4};
  const Draw draw{.seed = 3};
  const auto truths = made.draw(draw, truth), means = made.draw(draw, mean);
  const double fit = squared_departure(means);
  EXPECT_LT(fit, 0.95);
  EXPECT_GT(fit, 0.2);
  // and they estimate the same truth, of which they explain a part
  const auto error = (truths.target - means.target).square().mean().item<double>(),
             all = truths.target.square().mean().item<double>();
  EXPECT_LT(error, 0.6 * all);
  EXPECT_LT(means.target.square().mean().item<double>(), all);
}

TEST_F(SimulatedBatchesTest, TrueFieldsAreWindowsAsTheyWere) {
  std::vector<int64_t> times;
  const auto anomalies = system_->anomalies(state::Purpose::training, times);
  const auto made = batches();
  const auto batch = made.true_fields(4, 12);
  ASSERT_EQ(batch.observations.size(), 12u);
  int64_t before = 0;
  for (int64_t i = 0; i < 12; ++i) {
    const auto time = batch.observations[i].time;
    EXPECT_GT(time, before);
    before = time;
    const auto found = std::lower_bound(times.begin(), times.end(), time);
    ASSERT_TRUE(found != times.end() && *found == time);
    EXPECT_TRUE(identical(batch.target[i], anomalies[found - times.begin()]));
  }
  expect_equal(made.true_fields(4, 12), batch);
}

}  // namespace
}  // namespace halcyon::assimilation
