// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/training_ranks.h"

#include <ATen/ATen.h>

#include <bit>

#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/broadcast.h"

namespace halcyon::training {
namespace {

constexpr const char* kOperation = "train";

std::vector<int64_t> starts(const parallel::Group& group, int64_t accumulate) {
  return parallel::starts_of(parallel::split_sizes(accumulate, group));
}

}  // namespace

TrainingRanks::TrainingRanks(const parallel::Group& group, torch::nn::Module& module,
                             const NamedTensors& parameters, const nlohmann::json& configuration,
                             int64_t accumulate)
    : group_(group),
      accumulate_(accumulate),
      first_(starts(group, accumulate)[group.rank()]),
      last_(starts(group, accumulate)[group.rank() + 1]) {
  if (size() == 1) return;
  parallel::Agreement agreement(group_, kOperation);
  agreement.prepare([&] {
    agreement.same("training.accumulate", accumulate);
    agreement.same("configuration", configuration.dump());
    HALCYON_CHECK_KIND(accumulate >= size(), configuration, kOperation,
                       "expected at least one micro-batch a step for each of {} ranks, got "
                       "training.accumulate: {}",
                       size(), accumulate);
  });
  agreement.post();
  agreement.finish();
  std::vector<at::Tensor> others;
  for (const auto& buffer : module.buffers()) {
    if (buffer.defined()) others.push_back(buffer);
  }
  data_parallel_ = std::make_unique<parallel::DataParallel>(
      parameters, group_, parallel::DataParallelOptions{.find_unused_parameters = true}, others);
  data_parallel_->set_sample_count(static_cast<double>(last_ - first_));
}

void TrainingRanks::begin_step() {
  if (data_parallel_) data_parallel_->begin_forward();
}

void TrainingRanks::set_last(bool is_last) {
  if (data_parallel_) data_parallel_->set_synchronise(is_last);
}

TrainingRanks::Step TrainingRanks::agree(int64_t step, double loss, int64_t samples, bool stop,
                                         const std::function<void()>& failure) {
  parallel::Agreement agreement(group_, kOperation);
  size_t loss_at = 0, samples_at = 0, stop_at = 0;
  agreement.prepare([&] {
    failure();
    agreement.same("step", step);
    loss_at = agreement.each(std::bit_cast<int64_t>(loss));
    samples_at = agreement.each(samples);
    stop_at = agreement.each(stop);
  });
  agreement.post();
  agreement.finish();
  Step all;
  for (int64_t r = 0; r < size(); ++r) {
    all.loss += std::bit_cast<double>(agreement.of(r, loss_at)) / static_cast<double>(accumulate_);
    all.samples += agreement.of(r, samples_at);
    all.stop |= agreement.of(r, stop_at) != 0;
  }
  return all;
}

void TrainingRanks::together(const std::function<void()>& f) const {
  parallel::Agreement agreement(group_, kOperation);
  agreement.prepare(f);
  agreement.post();
  agreement.finish();
}

void TrainingRanks::take_from_leader(const StateTensors& state,
                                     std::optional<nlohmann::json>& progress) const {
  if (size() == 1) return;
  std::string text = leads() && progress ? progress->dump() : "";
  parallel::Agreement agreement(group_, kOperation);
  size_t length_at = 0;
  agreement.prepare([&] {
    agreement.same("number of tensors of the state", static_cast<int64_t>(state.size()));
    length_at = agreement.each(static_cast<int64_t>(text.size()));
  });
  agreement.post();
  agreement.finish();
  const auto length = agreement.of(0, length_at);
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : state) tensors.push_back(tensor);
  text.resize(length);
  const auto bytes = at::from_blob(text.data(), {length}, at::kByte);
  if (length > 0) tensors.push_back(bytes);
  parallel::take_from_owners(tensors, std::vector<int64_t>(tensors.size(), 0), group_, kOperation,
                             agreement.tag());
  if (length > 0) progress = nlohmann::json::parse(text);
}

}  // namespace halcyon::training
