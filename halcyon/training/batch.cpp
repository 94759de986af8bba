// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/batch.h"

#include "halcyon/base/error.h"

namespace halcyon::training {

SupervisedTask::SupervisedTask(std::shared_ptr<torch::nn::Module> module, Forward forward,
                               std::shared_ptr<SampleSource> source, LossOptions loss,
                               Validate validate)
    : module_(std::move(module)),
      forward_(std::move(forward)),
      source_(std::move(source)),
      loss_(std::move(loss)),
      validate_(std::move(validate)) {
  HALCYON_CHECK(module_ != nullptr && forward_ && source_ != nullptr, "SupervisedTask",
                "expected a module, a forward function and a source of samples");
}

Loss SupervisedTask::loss(const Draw& draw) {
  const Batch batch = source_->batch(draw);
  const at::Tensor prediction = forward_(batch);
  Loss loss{weighted_loss(prediction, batch.target, loss_, batch.mask, batch.weight),
            batch.size(),
            {{"input x", batch.x},
             {"second_of_day", batch.second_of_day},
             {"day_of_year", batch.day_of_year},
             {"observations", batch.observations.obs},
             {"observation features", batch.observations.float_metadata},
             {"weight", batch.weight},
             {"prediction", prediction}}};
  // Masked targets may hold NaN
  if (!batch.mask.defined()) loss.parts.emplace_back("target", batch.target);
  return loss;
}

Scores SupervisedTask::validate() {
  return validate_ ? validate_() : Scores{};
}

}  // namespace halcyon::training
