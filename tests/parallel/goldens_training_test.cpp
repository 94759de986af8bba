// SPDX-License-Identifier: Apache-2.0
// A step of a network of two convolutions against ../shared/golden/parallel/ddp_n2: samples over
// the ranks of a column, latitudes over those of a row.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/data_parallel.h"
#include "halcyon/parallel/reduce_gradients.h"
#include "tests/parallel/golden_cases.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon::parallel {
namespace {

using namespace test;

// 0.1 of "after_sgd_lr0.1.c1.bias".
constexpr auto kAfter = "after_sgd_lr0.1.";
constexpr double kLearningRate = 0.1;

// The rank's output, then of each parameter, in the order of their names, its gradient and what SGD
// makes of it.
std::vector<at::Tensor> step(const Golden& golden, const Group& data, const Group& domain) {
  DataParallel::NamedTensors parameters;
  for (const auto& [name, value] : golden.under("param.")) {
    parameters.emplace_back(name, leaf(data.rank() == 0 ? value : at::zeros_like(value)));
  }
  DataParallel parallel(parameters, data);  // the others take over what rank 0 has
  const auto mine = [&](const char* name) {
    const auto& whole = golden.at(name);
    const auto samples = part(whole, split_sizes(whole.size(0), data), data.rank(), 0);
    return part(samples, split_sizes(whole.size(-2), domain), domain.rank(), -2);
  };
  const auto layer = [&](const at::Tensor& x, size_t i) {
    return conv(x, parameters[i + 1].second, parameters[i].second, 1, std::string("same"), 1, 1,
                "zeros", -2, domain);
  };
  parallel.begin_forward();
  const auto out = layer(at::gelu(layer(mine("x"), 0)), 2);
  // the mean over the samples of this column's rank, of which this rank has some rows
  const auto count = golden.at("target").numel() / data.size();
  const auto loss = (out - mine("target")).square().sum() / static_cast<double>(count);
  loss.backward();
  std::vector<at::Tensor> all;
  for (const auto& [name, parameter] : parameters) all.push_back(parameter);
  reduce_gradients(all, domain);
  std::vector<at::Tensor> results{out.detach()};
  for (const auto& [name, parameter] : parameters) {
    results.push_back(parameter.grad().clone());
    results.push_back(parameter.detach() - kLearningRate * parameter.grad());
  }
  return results;
}

TEST(ParallelGoldens, StepsOfDataAndDomainParallel) {
  HALCYON_NEEDS_SHARED();
  const auto golden = test::golden("parallel/ddp_n2");
  const std::vector<std::pair<int64_t, int64_t>> grids{{2, 1}, {1, 2}, {2, 2}, {1, 3}, {1, 4}};
  std::vector<Problem> problems;
  for (const auto& [samples, domain] : grids) {
    const auto work = [&](const Place& place) { return step(golden, place.down, place.along); };
    const auto check = [&golden, domain](const Parts& parts) {
      Parts rows;
      for (size_t rank = 0; rank < parts.size(); ++rank) {
        size_t i = 1;
        for (const auto& [name, value] : golden.under("param.")) {
          EXPECT_TRUE(near(parts[rank].at(i++), golden.at("grad." + name), kExact)) << name;
          EXPECT_TRUE(near(parts[rank].at(i++), golden.at(kAfter + name), kExact)) << name;
        }
        EXPECT_EQ(i, 1 + 2 * 4U);
        if (rank % domain != 0) continue;
        rows.push_back({joined({&parts[rank], &parts[rank] + domain}, 0, -2)});
      }
      EXPECT_TRUE(near(joined(rows, 0, 0), golden.at("out"), kExact));
    };
    problems.push_back({"ddp", samples, domain, work, check});
  }
  solve(problems);
}

}  // namespace
}  // namespace halcyon::parallel
