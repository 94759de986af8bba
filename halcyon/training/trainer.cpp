// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/trainer.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/utils.h>

#include <chrono>
#include <cmath>
#include <exception>

#include "halcyon/base/error.h"
#include "halcyon/base/log.h"
#include "halcyon/base/progress.h"
#include "halcyon/training/csv_log.h"
#include "halcyon/training/event_file.h"
#include "halcyon/training/numerics.h"
#include "halcyon/training/sharded_optimizer.h"

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

std::unique_ptr<Optimizer> optimizer_of(torch::nn::Module& module, const TrainConfig& config,
                                        const parallel::Group& group) {
  if (!config.sharded_optimizer) return std::make_unique<AdamW>(module, config.optimizer);
  return std::make_unique<ShardedAdamW>(module, config.optimizer, group);
}

// What has to be the same on every rank.
nlohmann::json shared_identity(const TrainConfig& config, const TrainOptions& options) {
  auto identity = config.identity();
  identity.erase("threads");
  return {{"training", identity}, {"provenance", options.provenance}, {"resume", config.resume}};
}

}  // namespace

struct Trainer::StepRecord {
  double loss = 0, gradient_norm = 0, learning_rate = 0;
  int64_t samples = 0;
  bool stop = false;  // asked for on some rank
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
      optimizer_(optimizer_of(task.module(), config_, options_.group)),
      ranks_(options_.group, task.module(), optimizer_->parameters(),
             shared_identity(config_, options_), config_.accumulate),
      average_(optimizer_->parameters(), config_.ema_decay) {
  if (!ranks_.leads()) return;
  lock_.emplace(config_.output);
  checkpoints_.emplace(config_.output, config_.keep_checkpoints);
}

StateTensors Trainer::state(const StateTensors& moments) const {
  StateTensors all = module_state(task_.module());
  add_state(all, "average.", average_.state());
  add_state(all, "adamw.", moments);
  return all;
}

std::optional<nlohmann::json> Trainer::restore_state(const StateTensors& all) {
  if (config_.resume == "auto") return checkpoints_->restore_newest(all);
  if (config_.resume != "never") return restore(config_.resume, all);
  HALCYON_CHECK_KIND(checkpoints_->list().empty(), configuration, "train",
                     "{} holds checkpoints of a run already: resume it (resume: auto) or choose "
                     "another output",
                     config_.output.string());
  return std::nullopt;
}

void Trainer::resume() {
  const auto moments = optimizer_->restored_state();
  const auto all = state(moments);
  std::optional<nlohmann::json> progress;
  ranks_.together([&] {
    if (ranks_.leads()) progress = restore_state(all);
  });
  ranks_.take_from_leader(all, progress);
  optimizer_->take_restored(moments);
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
  for (const auto& [name, p] : optimizer_->parameters()) weights += p.numel();
  std::optional<Logs> logs;
  if (ranks_.leads()) {
    log::info("training: {} parameters in {} tensors, {} ranks of {} threads, seed {}", weights,
              optimizer_->parameters().size(), ranks_.size(), at::get_num_threads(), config_.seed);
    logs.emplace(config_, options_, step_);
  }
  Logs* const kept = logs ? &*logs : nullptr;
  const bool alone = ranks_.size() == 1;
  bool stop = false;
  TrainOutcome outcome{step_, step_ >= config_.steps, 0, scores_};
  double begun = seconds_now();
  while (step_ < config_.steps) {
    if (stop || (alone && options_.stop && options_.stop())) break;
    StepRecord record;
    keep_buffers();
    try {
      record = train_step();
    } catch (const Error& e) {
      // A forward pass may have put what is not finite into running statistics.
      restore_buffers();
      if (e.kind() == ErrorKind::numerics) save(kept);
      throw;
    }
    ++step_;
    samples_ += record.samples;
    const double now = seconds_now(), rate = static_cast<double>(record.samples) / (now - begun);
    if (logs) logs->step(step_, record, samples_, rate);
    outcome.loss = record.loss;
    stop = record.stop;
    const bool last = step_ == config_.steps;
    if (last || (config_.validate_every > 0 && step_ % config_.validate_every == 0)) {
      if (logs) validate(*logs);
    }
    if (last || step_ % config_.checkpoint_every == 0) save(kept);
    begun = seconds_now();
  }
  save(kept);
  if (logs && logs->progress) logs->progress->finish(fmt::format("loss {:.4g}", logs->smooth));
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

// The loss of one micro-batch, with its graph.
at::Tensor Trainer::loss_of(int64_t micro, StepRecord& record) {
  const Draw draw{static_cast<uint64_t>(config_.seed), step_, micro, config_.accumulate};
  torch::manual_seed(mix(draw.seed, {static_cast<uint64_t>(step_), static_cast<uint64_t>(micro)}));
  Loss loss;
  {
    const auto device = optimizer_->parameters().front().second.device().type();
    const Bf16Autocast autocast(device, config_.precision == Precision::bf16);
    loss = task_.loss(draw);
  }
  HALCYON_CHECK(loss.value.defined() && loss.value.numel() == 1, "train",
                "expected a scalar loss from the task");
  const double value = loss.value.item<double>();
  if (!std::isfinite(value)) {
    NamedTensors suspects = optimizer_->parameters();
    suspects.insert(suspects.end(), loss.parts.begin(), loss.parts.end());
    suspects.emplace_back("loss", loss.value);
    not_finite(first_not_finite(suspects));
  }
  record.loss += value;
  record.samples += loss.samples;
  // over several ranks these gradients' mean is weighted by the number of their micro-batches
  return loss.value / static_cast<double>(ranks_.last() - ranks_.first());
}

Trainer::StepRecord Trainer::train_step() {
  StepRecord record;
  record.learning_rate = config_.schedule.rate(step_);
  task_.module().train();
  optimizer_->zero_grad();
  ranks_.begin_step();
  std::exception_ptr failure;
  for (int64_t micro = ranks_.first(); micro < ranks_.last(); ++micro) {
    const bool last = micro + 1 == ranks_.last();
    at::Tensor loss;
    try {
      if (!failure) loss = loss_of(micro, record);
    } catch (const Error&) {
      failure = std::current_exception();
    }
    ranks_.set_last(last);
    if (last) {
      const auto all = ranks_.agree(step_, record.loss, record.samples,
                                    ranks_.size() > 1 && options_.stop && options_.stop(), [&] {
                                      if (failure) std::rethrow_exception(failure);
                                    });
      record.loss = all.loss;
      record.samples = all.samples;
      record.stop = all.stop;
    }
    if (loss.defined()) loss.backward();
  }
  record.gradient_norm = optimizer_->clip_gradients(config_.gradient_clip);
  if (!std::isfinite(record.gradient_norm)) {
    NamedTensors gradients;
    for (const auto& [name, p] : optimizer_->parameters()) {
      gradients.emplace_back("the gradient of " + name, p.grad());
    }
    const std::string culprit = first_not_finite(gradients);
    not_finite(culprit.empty() ? "the global norm of the gradients" : culprit);
  }
  optimizer_->step(step_, record.learning_rate);
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
    const auto device = optimizer_->parameters().front().second.device().type();
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

void Trainer::save(Logs* logs) {
  if (saved_step_ == step_) return;
  saved_step_ = step_;
  const auto moments = optimizer_->saved_state();  // on every rank
  if (!logs) return;
  Scores scores;  // JSON has no NaN
  for (const auto& [name, value] : scores_) {
    if (std::isfinite(value)) scores[name] = value;
  }
  logs->training.flush();
  if (logs->validation) logs->validation->flush();
  checkpoints_->save(step_, state(moments),
                     {{"step", step_},
                      {"samples", samples_},
                      {"best", best_ ? nlohmann::json(*best_) : nlohmann::json()},
                      {"best_step", best_step_},
                      {"scores", scores},
                      {"training", config_.identity()},
                      {"provenance", options_.provenance}});
}

}  // namespace halcyon::training
