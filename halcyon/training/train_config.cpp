// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/train_config.h"

#include <ATen/Parallel.h>

namespace halcyon::training {
namespace {

const config::Names<Precision> kPrecisions{{"fp32", Precision::fp32}, {"bf16", Precision::bf16}};

AdamWOptions optimizer_options(const config::Node& node) {
  AdamWOptions options;
  const auto betas = node.optional<std::vector<double>>("betas", {options.beta1, options.beta2},
                                                        config::between(0, 1));
  node.check(betas.size() == 2 && betas[0] < 1 && betas[1] < 1, "betas",
             "expected two numbers below 1");
  options.beta1 = betas[0];
  options.beta2 = betas[1];
  options.epsilon = node.optional<double>("epsilon", options.epsilon, config::positive());
  options.weight_decay =
      node.optional<double>("weight_decay", options.weight_decay, config::at_least(0));
  options.no_decay = node.optional<std::vector<std::string>>("no_decay", {});
  return options;
}

}  // namespace

TrainConfig TrainConfig::from(const config::Node& training) {
  TrainConfig c;
  c.output = training.required<std::filesystem::path>("output");
  c.steps = training.required<int64_t>("steps", config::at_least(1));
  c.seed = training.optional<int64_t>("seed", c.seed, config::at_least(0));
  c.accumulate = training.optional<int64_t>("accumulate", c.accumulate, config::at_least(1));
  c.precision = training.choice("precision", kPrecisions, c.precision);
  c.resume = training.optional<std::string>("resume", c.resume);
  if (c.resume != "auto" && c.resume != "never") c.resume = training.input_file("resume").string();

  const config::Node optimizer = training.section_or_defaults("optimizer");
  c.schedule.peak =
      optimizer.optional<double>("learning_rate", c.schedule.peak, config::positive());
  c.optimizer = optimizer_options(optimizer);
  c.sharded_optimizer = optimizer.optional<bool>("sharded", false);
  const config::Node schedule = training.section_or_defaults("schedule");
  c.schedule.steps = c.steps;
  c.schedule.warmup = schedule.optional<int64_t>("warmup", 0, config::at_least(0));
  schedule.check(c.schedule.warmup <= c.steps, "warmup", "expected at most the {} steps", c.steps);
  c.schedule.final_fraction = schedule.optional<double>("final_fraction", 0, config::between(0, 1));

  c.gradient_clip =
      training.optional<double>("gradient_clip", c.gradient_clip, config::at_least(0));
  c.loss = loss_options(training.section_or_defaults("loss"));
  c.ema_decay = training.section_or_defaults("ema").optional<double>("decay", c.ema_decay,
                                                                     config::between(0, 1));
  const config::Node validation = training.section_or_defaults("validation");
  c.validate_every = validation.optional<int64_t>("every", 0, config::at_least(0));
  c.best_score = validation.optional<std::string>("best", "");
  const config::Node checkpoints = training.section_or_defaults("checkpoints");
  c.checkpoint_every =
      checkpoints.optional<int64_t>("every", c.checkpoint_every, config::at_least(1));
  c.keep_checkpoints =
      checkpoints.optional<int64_t>("keep", c.keep_checkpoints, config::at_least(1));
  c.tensorboard = training.section_or_defaults("log").optional<bool>("tensorboard", c.tensorboard);
  return c;
}

nlohmann::json TrainConfig::identity() const {
  return {{"steps", steps},
          {"seed", seed},
          {"accumulate", accumulate},
          {"precision", precision == Precision::bf16 ? "bf16" : "fp32"},
          {"learning_rate", schedule.peak},
          {"warmup", schedule.warmup},
          {"final_fraction", schedule.final_fraction},
          {"betas", {optimizer.beta1, optimizer.beta2}},
          {"epsilon", optimizer.epsilon},
          {"weight_decay", optimizer.weight_decay},
          {"no_decay", optimizer.no_decay},
          {"gradient_clip", gradient_clip},
          {"loss", loss.kind == LossKind::mse ? "mse" : "huber"},
          {"delta", loss.delta},
          {"channel_weights", loss.channel_weights},
          {"ema_decay", ema_decay},
          {"threads", at::get_num_threads()}};
}

}  // namespace halcyon::training
