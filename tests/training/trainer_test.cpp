// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/trainer.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include <fstream>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"
#include "tests/training/toy.h"

namespace halcyon::training {
namespace {
using halcyon::test::TemporaryFolder;
using test::ToyTask;

TrainConfig config(const TemporaryFolder& folder, const std::string& more = "",
                   const std::string& steps = "60") {
  const auto node =
      config::parse("training: {output: '" + folder.path().string() + "', steps: " + steps +
                        ", seed: 3, optimizer: {learning_rate: 1e-2}, schedule: "
                        "{warmup: 5}, ema: {decay: 0.9}, checkpoints: {every: 20, "
                        "keep: 2}" +
                        more + "}",
                    "run.yaml", "");
  TrainConfig c = TrainConfig::from(node.section("training"));
  node.finish();
  return c;
}

// The toy is too small to share, and spinning threads are slow on a busy machine.
const bool kOneThread = (at::set_num_threads(1), true);

TrainOutcome train(Task& task, TrainConfig c, TrainOptions options = {}) {
  options.show_progress = false;
  return Trainer(task, std::move(c), std::move(options)).run();
}

// All columns but the last, the speed.
std::vector<std::string> losses(const TemporaryFolder& folder) {
  std::ifstream in(folder / "training.csv");
  std::vector<std::string> rows;
  for (std::string row; std::getline(in, row);) rows.push_back(row.substr(0, row.rfind(',')));
  return rows;
}

template <class F>
std::string message(ErrorKind kind, F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind);
    return e.what();
  }
  return "no error";
}

TEST(Trainer, LearnsAndKeepsItsRecords) {
  const TemporaryFolder folder;
  ToyTask task;
  const double before = [&] {
    const torch::NoGradGuard no_grad;
    task.net->eval();
    return task.validate().at("mse");
  }();
  std::vector<int64_t> bests;
  TrainOptions options;
  options.on_best = [&](int64_t step, const Scores&) { bests.push_back(step); };
  const auto outcome =
      train(task, config(folder, ", validation: {every: 50, best: mse}", "300"), options);
  EXPECT_TRUE(outcome.finished);
  EXPECT_EQ(outcome.step, 300);
  EXPECT_LT(outcome.scores.at("mse"), 0.6 * before);
  ASSERT_FALSE(bests.empty());
  EXPECT_EQ(bests.front(), 50);
  const auto rows = losses(folder);
  ASSERT_EQ(rows.size(), 301u);
  EXPECT_EQ(rows[0], "step,learning_rate,loss,gradient_norm,samples");
  EXPECT_TRUE(rows[300].starts_with("300,"));
  EXPECT_TRUE(rows[300].ends_with(",4800"));
  const std::string validation = read_text(folder / "validation.csv");
  EXPECT_TRUE(validation.starts_with("step,bias,mse\n50,"));
  EXPECT_EQ(std::count(validation.begin(), validation.end(), '\n'), 7);
  EXPECT_EQ(Checkpoints(folder.path(), 2).list(),
            (std::vector<std::filesystem::path>{folder / "step-000000300.safetensors",
                                                folder / "step-000000280.safetensors"}));
}

TEST(Trainer, AStoppedRunResumesToTheSameBits) {
  const TemporaryFolder whole, parts;
  ToyTask one, first, second;
  train(one, config(whole));
  TrainOptions stop;
  int asked = 0;
  stop.stop = [&] { return asked++ == 33; };
  const auto stopped = train(first, config(parts), stop);
  EXPECT_FALSE(stopped.finished);
  EXPECT_EQ(stopped.step, 33);
  const auto outcome = train(second, config(parts));
  EXPECT_EQ(outcome.step, 60);
  EXPECT_EQ(losses(parts), losses(whole));
  const auto a = read_safetensors(whole / "step-000000060.safetensors");
  const auto b = read_safetensors(parts / "step-000000060.safetensors");
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    EXPECT_TRUE(halcyon::test::identical(b.at(name), tensor)) << name;
  }
  EXPECT_EQ(a.metadata, b.metadata);

  // A finished run has nothing left to do, and hands its weights over.
  ToyTask third;
  EXPECT_TRUE(train(third, config(parts)).finished);
  EXPECT_TRUE(halcyon::test::identical(third.net->first->weight, one.net->first->weight));
}

TEST(Trainer, ADamagedCheckpointIsPassedOver) {
  const TemporaryFolder whole, parts;
  ToyTask one, two, three;
  train(one, config(whole));
  TrainOptions stop;
  int asked = 0;
  stop.stop = [&] { return asked++ == 50; };
  train(two, config(parts), stop);
  std::filesystem::resize_file(parts / "step-000000050.safetensors", 1000);
  write_text(parts / "step-000000055.safetensors.77-1.tmp", "half");
  write_text(parts / "notes.tmp", "mine");
  train(three, config(parts));
  EXPECT_EQ(losses(parts), losses(whole));
  EXPECT_FALSE(std::filesystem::exists(parts / "step-000000055.safetensors.77-1.tmp"));
  EXPECT_TRUE(std::filesystem::exists(parts / "notes.tmp"));
}

TEST(Trainer, AccumulatedMicroBatchesAreDistinct) {
  const TemporaryFolder one, two;
  ToyTask a, b;
  train(a, config(one, ", accumulate: 1", "5"));
  const auto outcome = train(b, config(two, ", accumulate: 3", "5"));
  EXPECT_EQ(outcome.step, 5);
  EXPECT_NE(losses(one)[1], losses(two)[1]);
  EXPECT_TRUE(losses(two)[5].ends_with(",240"));
}

TEST(Trainer, NonFiniteNumbersStopItBeforeTheWeightsAreTouched) {
  const TemporaryFolder folder;
  ToyTask task, again;
  task.poison_input_at = 30;
  EXPECT_NE(message(ErrorKind::numerics, [&] { train(task, config(folder)); })
                .find("step 31: not finite first: input (128 of 128 values)"),
            std::string::npos);
  EXPECT_TRUE(task.net->first->weight.isfinite().all().item<bool>());
  EXPECT_TRUE(task.net->norm->running_mean.isfinite().all().item<bool>());
  EXPECT_EQ(Checkpoints(folder.path(), 2).list().front(), folder / "step-000000030.safetensors");
  EXPECT_EQ(losses(folder).size(), 31u);

  again.poison_gradient_at = 31;
  EXPECT_NE(message(ErrorKind::numerics, [&] { train(again, config(folder)); })
                .find("step 32: not finite first: the gradient of second.weight (64 of 64"),
            std::string::npos);
}

TEST(Trainer, Bf16TrainsToo) {
  const TemporaryFolder folder;
  ToyTask task;
  const auto outcome = train(task, config(folder, ", precision: bf16", "200"));
  EXPECT_LT(outcome.scores.at("mse"), 12);
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(task.net->first->weight.scalar_type(), torch::kFloat);
}

TEST(Trainer, RunsDoNotMix) {
  const TemporaryFolder folder;
  ToyTask task, other(640);
  train(task, config(folder, "", "20"));
  EXPECT_NE(
      message(ErrorKind::configuration, [&] { train(task, config(folder, ", resume: never")); })
          .find("resume: auto"),
      std::string::npos);
  const std::string shapes = message(ErrorKind::input, [&] { train(other, config(folder)); });
  EXPECT_NE(shapes.find("missing model.ballast"), std::string::npos) << shapes;
  Trainer holder(task, config(folder));
  EXPECT_NE(message(ErrorKind::configuration, [&] { train(task, config(folder)); })
                .find("another process trains"),
            std::string::npos);
}

TEST(Trainer, ANameOfNoScoreIsAnError) {
  const TemporaryFolder folder;
  ToyTask task;
  EXPECT_NE(message(ErrorKind::configuration,
                    [&] { train(task, config(folder, ", validation: {best: rmse}", "6")); })
                .find("expected one of bias, mse, got 'rmse'"),
            std::string::npos);
}

TEST(TrainConfig, DescribesWhatIsWrong) {
  const auto wrong = [](const std::string& text) {
    return message(ErrorKind::configuration,
                   [&] { TrainConfig::from(config::parse("output: x\n" + text, "run.yaml", "")); });
  };
  EXPECT_EQ(wrong("steps: 0"),
            "run.yaml:2: [steps] expected a whole number of at least 1, got '0'");
  EXPECT_EQ(wrong("steps: 5\nschedule: {warmup: 6}"),
            "run.yaml:3: [schedule.warmup] expected at most the 5 steps");
  EXPECT_EQ(wrong("steps: 5\noptimizer: {betas: [0.9]}"),
            "run.yaml:3: [optimizer.betas] expected two numbers below 1");
  EXPECT_NE(wrong("steps: 5\nresume: nowhere.safetensors").find("no readable file"),
            std::string::npos);
}

}  // namespace
}  // namespace halcyon::training
