// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/tuning_calls.h"

#include <ATen/Functions.h>

#include "halcyon/base/error.h"
#include "halcyon/model/healda.h"

namespace halcyon {
namespace {

constexpr const char* kName = "tuning";

struct Inputs {
  at::Tensor x, t, second, day;
  ObsContext observations;
  std::optional<at::Tensor> labels;
};

Inputs make_inputs(const HealDA& model, int64_t batch, int64_t rows) {
  const auto& c = model->config();
  const int64_t tokens = batch * c.time_length * model->pixels_model();
  const auto ids = [&] { return at::zeros({rows}, at::kLong); };
  Inputs in{at::randn({batch, c.in_channels, c.time_length, model->pixels_in()}),
            at::zeros({batch}),
            at::zeros({batch, c.time_length}),
            at::zeros({batch, c.time_length}),
            prepare_obs_context(at::randn({rows}), at::randn({rows, c.obs_meta_dim}), ids(), ids(),
                                ids(), at::randint(tokens, {rows}, at::kLong), tokens),
            {}};
  if (c.condition_dim > 0) in.labels = at::zeros({batch, c.condition_dim});
  return in;
}

at::Tensor call(HealDA& model, const Inputs& in) {
  return model->forward(in.x, in.t, in.second, in.day, in.observations, in.labels);
}

}  // namespace

void make_tuning_calls(HealDAConfig config, const TuningCalls& calls,
                       const std::function<void(int64_t, int64_t)>& report) {
  for (const int64_t batch : calls.batches)
    HALCYON_CHECK(batch >= 1, kName, "expected a batch of 1 or more, got {}", batch);
  for (const int64_t rows : calls.observations)
    HALCYON_CHECK(rows >= 0, kName, "expected 0 or more observations, got {}", rows);
  config.num_layers = std::min<int64_t>(config.num_layers, 1);
  HealDA model(config);
  const auto all = static_cast<int64_t>(calls.batches.size() * calls.observations.size());
  int64_t done = 0;
  for (const int64_t batch : calls.batches) {
    for (const int64_t rows : calls.observations) {
      const auto in = make_inputs(model, batch, rows);
      if (calls.training) {
        model->train();
        call(model, in).sum().backward();
        model->zero_grad();
      }
      model->eval();
      const torch::NoGradGuard no_grad;
      call(model, in);
      if (report) report(++done, all);
    }
  }
  if (config.condition_dim == 0) model->prepare_inference();  // as analyses do; it has own products
}

}  // namespace halcyon
