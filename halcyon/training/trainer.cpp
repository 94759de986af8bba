// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/trainer.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/utils.h>

#include <chrono>
#include <cmath>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"
#include "halcyon/base/progress.h"
#include "halcyon/training/csv_log.h"
#include "halcyon/training/event_file.h"
#include "halcyon/training/numerics.h"

namespace halcyon::training {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void warn_of_changes(const nlohmann::json& before, const nlohmann::json& now) {
  for (const auto& [key, value] : now.items()) {
    const nlohmann::json old = before.is_object() ? before.value(key, nlohmann::json()) : nullptr;
    if (old != value) {
      log::warn("resumed with another {}: {} before, {} now", key, old.dump(), value.dump());
    }
  }
}

}  // namespace

struct Trainer::StepRecord {
  double loss = 0, gradient_norm = 0, learning_rate = 0;
  int64_t samples = 0;
};

struct Trainer::Logs {
  Logs(const TrainConfig& config, const TrainOptions& options, int64_t step)
      : resumed_at(step),
        training(config.output / "training.csv",
                 {"learning_rate", "loss", "gradient_norm", "samples", "samples_per_second"},
                 step) {
    if (config.tensorboard) events = std::make_unique<EventFile>(config.output, step + 1);
    if (options.show_progress) {
      progress = std::make_unique<Progress>("train", config.steps, step);
    }
  }

  void step(int64_t step, const StepRecord& record, int64_t samples, double rate) {
    training.row(step, {record.learning_rate, record.loss, record.gradient_norm,
                        static_cast<double>(samples), rate});
    if (events) {
      events->scalars(step, {{"train/loss", record.loss},
                             {"train/learning_rate", record.learning_rate},
                             {"train/gradient_norm", record.gradient_norm},
                             {"train/samples_per_second", rate}});
    }
    smooth = smooth == 0 ? record.loss : 0.98 * smooth + 0.02 * record.loss;
    if (progress) progress->update(step, fmt::format("loss {:.4g}", smooth));
  }

  int64_t resumed_at;
  CsvLog training;
  std::unique_ptr<CsvLog> validation;  // its columns are known at the first validation
  std::unique_ptr<EventFile> events;
  std::unique_ptr<Progress> progress;
  double smooth = 0;  // of the losses, for the eye
};

Trainer::Trainer(Task& task, TrainConfig config, TrainOptions options)
    : task_(task),
      config_(std::move(config)),
      options_(std::move(options)),
      lock_(config_.output),
      checkpoints_(config_.output, config_.keep_checkpoints),
      optimizer_(task.module(), config_.optimizer),
      average_(optimizer_.parameters(), config_.ema_decay) {}

StateTensors Trainer::state() const {
  StateTensors all = module_state(task_.module());
  add_state(all, "average.", average_.state());
  add_state(all, "adamw.", optimizer_.state());
  return all;
}

void Trainer::resume() {
  std::optional<nlohmann::json> progress;
  if (config_.resume == "auto") {
    progress = checkpoints_.restore_newest(state());
  } else if (config_.resume == "never") {
    HALCYON_CHECK_KIND(checkpoints_.list().empty(), configuration, "train",
                       "{} holds checkpoints of a run already: resume it (resume: auto) or choose "
                       "another output",
                       config_.output.string());
  } else {
    progress = restore(config_.resume, state());
  }
  if (!progress) return;
  try {
    step_ = progress->at("step");
    samples_ = progress->at("samples");
    best_step_ = progress->at("best_step");
    if (!progress->at("best").is_null()) best_ = progress->at("best").get<double>();
    scores_ = progress->at("scores").get<Scores>();
  } catch (const nlohmann::json::exception& e) {
    throw_error(ErrorKind::input, "train", fmt::format("a broken checkpoint: {}", e.what()));
  }
  saved_step_ = step_;
  warn_of_changes(progress->value("training", nlohmann::json()), config_.identity());
  log::info("resumed after step {} of {}", step_, config_.steps);
}

TrainOutcome Trainer::run() {
  resume();
  int64_t weights = 0;
  for (const auto& [name, p] : optimizer_.parameters()) weights += p.numel();
  log::info("training: {} parameters in {} tensors, {} threads, seed {}", weights,
            optimizer_.parameters().size(), at::get_num_threads(), config_.seed);
  Logs logs(config_, options_, step_);
  TrainOutcome outcome{step_, step_ >= config_.steps, 0, scores_};
  double begun = seconds_now();
  while (step_ < config_.steps) {
    if (options_.stop && options_.stop()) break;
    StepRecord record;
    keep_buffers();
    try {
      record = train_step();
    } catch (const Error& e) {
      // A forward pass may have put what is not finite into running statistics.
      restore_buffers();
      if (e.kind() == ErrorKind::numerics) save(logs);
      throw;
    }
    ++step_;
    samples_ += record.samples;
    const double now = seconds_now(), rate = static_cast<double>(record.samples) / (now - begun);
    logs.step(step_, record, samples_, rate);
    outcome.loss = record.loss;
    const bool last = step_ == config_.steps;
    if (last || (config_.validate_every > 0 && step_ % config_.validate_every == 0)) {
      validate(logs);
    }
    if (last || step_ % config_.checkpoint_every == 0) save(logs);
    begun = seconds_now();
  }
  if (saved_step_ != step_) save(logs);
  if (logs.progress) logs.progress->finish(fmt::format("loss {:.4g}", logs.smooth));
  outcome.step = step_;
  outcome.finished = step_ == config_.steps;
  outcome.scores = scores_;
  return outcome;
}

void Trainer::keep_buffers() {
  buffers_.clear();
  for (const auto& buffer : task_.module().buffers()) {
    if (buffer.defined()) buffers_.emplace_back(buffer, buffer.detach().clone());
  }
}

void Trainer::restore_buffers() {
  const c10::NoGradGuard no_grad;
  for (auto& [buffer, before] : buffers_) buffer.copy_(before);
}

Trainer::StepRecord Trainer::train_step() {
  StepRecord record;
  record.learning_rate = config_.schedule.rate(step_);
  task_.module().train();
  optimizer_.zero_grad();
  const auto device = optimizer_.parameters().front().second.device().type();
  for (int64_t micro = 0; micro < config_.accumulate; ++micro) {
    const Draw draw{static_cast<uint64_t>(config_.seed), step_, micro, config_.accumulate};
    torch::manual_seed(
        mix(draw.seed, {static_cast<uint64_t>(step_), static_cast<uint64_t>(micro)}));
    Loss loss;
    {
      const Bf16Autocast autocast(device, config_.precision == Precision::bf16);
      loss = task_.loss(draw);
    }
    HALCYON_CHECK(loss.value.defined() && loss.value.numel() == 1, "train",
                  "expected a scalar loss from the task");
    const double value = loss.value.item<double>();
    if (!std::isfinite(value)) {
      NamedTensors suspects = optimizer_.parameters();
      suspects.insert(suspects.end(), loss.parts.begin(), loss.parts.end());
      suspects.emplace_back("loss", loss.value);
      not_finite(first_not_finite(suspects));
    }
    record.loss += value / static_cast<double>(config_.accumulate);
    record.samples += loss.samples;
    (loss.value / static_cast<double>(config_.accumulate)).backward();
  }
  record.gradient_norm = optimizer_.clip_gradients(config_.gradient_clip);
  if (!std::isfinite(record.gradient_norm)) {
    NamedTensors gradients;
    for (const auto& [name, p] : optimizer_.parameters()) {
      gradients.emplace_back("the gradient of " + name, p.grad());
    }
    const std::string culprit = first_not_finite(gradients);
    not_finite(culprit.empty() ? "the global norm of the gradients" : culprit);
  }
  optimizer_.step(step_, record.learning_rate);
  average_.update(step_);
  return record;
}

void Trainer::not_finite(const std::string& culprit) {
  throw_error(ErrorKind::numerics, "train",
              fmt::format("step {}: not finite first: {}; the weights are those after step {}",
                          step_ + 1, culprit, step_));
}

void Trainer::validate(Logs& logs) {
  if (logs.progress) logs.progress->clear();
  const MovingAverage::Scope averaged(average_);
  const c10::NoGradGuard no_grad;
  task_.module().eval();
  {
    const auto device = optimizer_.parameters().front().second.device().type();
    const Bf16Autocast autocast(device, config_.precision == Precision::bf16);
    scores_ = task_.validate();
  }
  if (scores_.empty()) return;
  std::vector<std::string> names;
  std::vector<double> values;
  std::vector<std::pair<std::string, double>> events;
  std::string line;
  for (const auto& [name, value] : scores_) {
    names.push_back(name);
    values.push_back(value);
    events.emplace_back("validation/" + name, value);
    line += fmt::format(" {} {:.5g}", name, value);
  }
  if (!logs.validation) {
    logs.validation =
        std::make_unique<CsvLog>(config_.output / "validation.csv", names, logs.resumed_at);
  }
  logs.validation->row(step_, values);
  if (logs.events) logs.events->scalars(step_, events);
  log::info("step {}:{}", step_, line);

  if (config_.best_score.empty()) return;
  const auto score = scores_.find(config_.best_score);
  HALCYON_CHECK_KIND(score != scores_.end(), configuration, "train",
                     "validation.best: expected one of {}, got '{}'", fmt::join(names, ", "),
                     config_.best_score);
  if (std::isfinite(score->second) && (!best_ || score->second < *best_)) {
    best_ = score->second;
    best_step_ = step_;
    if (options_.on_best) options_.on_best(step_, scores_);
  }
}

void Trainer::save(Logs& logs) {
  if (saved_step_ == step_) return;
  Scores scores;  // JSON has no NaN
  for (const auto& [name, value] : scores_) {
    if (std::isfinite(value)) scores[name] = value;
  }
  logs.training.flush();
  if (logs.validation) logs.validation->flush();
  checkpoints_.save(step_, state(),
                    {{"step", step_},
                     {"samples", samples_},
                     {"best", best_ ? nlohmann::json(*best_) : nlohmann::json()},
                     {"best_step", best_step_},
                     {"scores", scores},
                     {"training", config_.identity()},
                     {"provenance", options_.provenance}});
  saved_step_ = step_;
}

}  // namespace halcyon::training
