// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/normalisation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "halcyon/base/error.h"
#include "tests/support/compare.h"

namespace halcyon::state {
namespace {

using test::near;

const std::vector<Variable> kTwo = {{"t", "", "", "K"}, {"p", "", "", "Pa"}};

TEST(Normalisation, FitsTheAreaWeightedRootMeanSquare) {
  // weights 1/3 at 60 N, 2/3 at the equator
  const at::Tensor anomalies =
      at::tensor({3.0, 0.0, 100.0, 200.0, 0.0, 3.0, 100.0, std::nan("")}, at::kDouble)
          .view({2, 2, 2});
  const Normalisation fitted = Normalisation::fit(kTwo, LatLonGrid({60, 0}, {0}), anomalies);
  EXPECT_NEAR(fitted.deviations().at("t"), std::sqrt((9.0 / 3 + 9 * 2.0 / 3) / 2), 1e-12);
  EXPECT_NEAR(fitted.deviations().at("p"), std::sqrt((2e4 / 3 + 4e4 * 2.0 / 3) / (4.0 / 3)), 1e-9);
}

TEST(Normalisation, AppliesAndInvertsInTheCallersType) {
  const Normalisation scale(kTwo, {{"t", 2.0}, {"p", 100.0}, {"unused", 1.0}});
  const at::Tensor anomalies = at::tensor({4.0f, 6.0f, 100.0f, -50.0f}).view({1, 2, 2});
  const at::Tensor scaled = scale.apply(anomalies);
  EXPECT_TRUE(near(scaled, at::tensor({2.0f, 3.0f, 1.0f, -0.5f}).view({1, 2, 2}), 1e-7));
  EXPECT_TRUE(near(scale.invert(scaled), anomalies, 1e-7));
}

TEST(Normalisation, RefusesMissingOrUselessDeviations) {
  EXPECT_THROW(Normalisation(kTwo, {{"t", 2.0}}), Error);
  EXPECT_THROW(Normalisation(kTwo, {{"t", 2.0}, {"p", 0.0}}), Error);
  EXPECT_THROW(Normalisation(kTwo, {{"t", 2.0}, {"p", std::nan("")}}), Error);
  EXPECT_THROW(Normalisation::fit(kTwo, LatLonGrid({0}, {0, 1}), at::zeros({3, 2, 2})), Error);
  EXPECT_THROW(Normalisation(kTwo, {{"t", 1.0}, {"p", 1.0}}).apply(at::ones({3, 5})), Error);
}

}  // namespace
}  // namespace halcyon::state
