// SPDX-License-Identifier: Apache-2.0
// HealDA with its frames on several ranks against itself in one process.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/model/healda.h"
#include "halcyon/parallel/reduce_gradients.h"
#include "tests/model/small_healda.h"
#include "tests/support/compare.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kBatch = 2, kFrames = 5, kPixels = 48, kObservations = 60;

HealDA small_model() {
  auto config = test::small_healda();
  config.time_length = kFrames;
  HealDA model(config);
  model->to(torch::kDouble);
  return model;
}

// The whole problem, of which ranks take frames.
struct Problem {
  at::Tensor x = at::randn({kBatch, 2, kFrames, 4 * kPixels}, at::kDouble);
  at::Tensor seconds = at::rand({kBatch, kFrames}, at::kDouble) * 86400;
  at::Tensor days = at::rand({kBatch, kFrames}, at::kDouble) * 365;
  at::Tensor weight = at::randn({kBatch, 3, kFrames, 4 * kPixels}, at::kDouble);
  at::Tensor obs = at::randn({kObservations}, at::kDouble);
  at::Tensor meta = at::randn({kObservations, 5}, at::kDouble);
  at::Tensor ids = at::randint(0, 30, {kObservations}, at::kInt);
  at::Tensor sample = at::randint(0, kBatch, {kObservations}, at::kLong);
  at::Tensor frame = at::randint(0, kFrames, {kObservations}, at::kLong);
  at::Tensor pixel = at::randint(0, kPixels, {kObservations}, at::kLong);
  std::map<std::string, at::Tensor> parameters;

  ObsContext observations(int64_t first, int64_t frames) const {
    const auto mine = ((frame >= first) & (frame < first + frames)).nonzero().squeeze(1);
    const auto of = [&](const at::Tensor& t) { return t.index_select(0, mine); };
    const auto flat = (of(sample) * frames + of(frame) - first) * kPixels + of(pixel);
    return prepare_obs_context(of(obs), of(meta), of(ids), of(ids), of(ids), flat,
                               kBatch * frames * kPixels);
  }
};

struct Outcome {
  at::Tensor y, gradient;
  std::map<std::string, at::Tensor> gradients;
};

Outcome outcome_of(const Problem& problem, HealDA& model, int64_t first, int64_t frames) {
  {
    const torch::NoGradGuard no_grad;
    for (auto& one : model->named_parameters()) one->copy_(problem.parameters.at(one.key()));
  }
  const auto x = problem.x.narrow(2, first, frames).clone().requires_grad_();
  const auto y = model->forward(
      x, at::full({kBatch}, 0.3, at::kDouble), problem.seconds.narrow(1, first, frames),
      problem.days.narrow(1, first, frames), problem.observations(first, frames));
  (y.sin() * problem.weight.narrow(2, first, frames)).sum().backward();
  Outcome outcome{y.detach(), x.grad(), {}};
  for (const auto& one : model->named_parameters()) outcome.gradients[one.key()] = one->grad();
  return outcome;
}

Problem drawn() {
  Problem problem;
  auto model = small_model();
  for (const auto& one : model->named_parameters()) {
    problem.parameters[one.key()] = at::randn_like(*one).mul_(0.2);
  }
  return problem;
}

TEST(ContextParallel, IsTheModelOfOneProcess) {
  const auto problem = drawn();
  auto alone = small_model();
  const auto expected = outcome_of(problem, alone, 0, kFrames);
  // even or not, with ranks that have no frame; one rank a frame can also go all to all
  const std::vector<std::pair<std::vector<int64_t>, std::string>> cuts{
      {{5}, "all_to_all"},         {{5}, "redistribute"},          {{3, 2}, "redistribute"},
      {{1, 0, 4}, "redistribute"}, {{2, 1, 1, 1}, "redistribute"}, {{0, 5}, "redistribute"}};
  for (const auto& [sizes, mode] : cuts) {
    SCOPED_TRACE(testing::Message() << mode << " of " << at::IntArrayRef(sizes));
    const auto starts = starts_of(sizes);
    std::vector<Outcome> outcomes(sizes.size());
    test::on_ranks(static_cast<int64_t>(sizes.size()), [&](const Group& group) {
      auto model = small_model();
      model->set_context_parallel(mode, group);
      auto& outcome = outcomes[group.rank()];
      outcome = outcome_of(problem, model, starts[group.rank()], sizes[group.rank()]);
      reduce_gradients(model->parameters(), group);
      for (const auto& one : model->named_parameters()) outcome.gradients[one.key()] = one->grad();
    });
    std::vector<at::Tensor> y, gradient;
    for (const auto& outcome : outcomes) {
      y.push_back(outcome.y);
      gradient.push_back(outcome.gradient);
      for (const auto& [name, wanted] : expected.gradients) {
        EXPECT_TRUE(test::near(outcome.gradients.at(name), wanted, test::kDouble)) << name;
      }
    }
    EXPECT_TRUE(test::near(at::cat(y, 2), expected.y, test::kDouble));
    EXPECT_TRUE(test::near(at::cat(gradient, 2), expected.gradient, test::kDouble));
  }
}

TEST(ContextParallel, RefusesUnequalPartsOnEveryRank) {
  const auto problem = drawn();
  std::vector<std::string> messages(2);
  test::on_ranks(2, [&](const Group& group) {
    auto model = small_model();
    model->set_context_parallel("all_to_all", group);
    try {
      outcome_of(problem, model, group.rank() * 3, 3 - group.rank());
    } catch (const Error& error) {
      messages[group.rank()] = error.what();
    }
  });
  EXPECT_NE(messages[0].find("redistribute"), std::string::npos) << messages[0];
  EXPECT_EQ(messages[0], messages[1]);
}

}  // namespace
}  // namespace halcyon::parallel
