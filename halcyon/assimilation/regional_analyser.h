// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "halcyon/assimilation/regional_system.h"
#include "halcyon/verify/analyser.h"

namespace halcyon::assimilation {

// The network as one of the analysers that the evaluation protocols compare.
class RegionalAnalyser : public verify::Analyser {
 public:
  RegionalAnalyser(std::shared_ptr<const RegionalSystem> system, HealDA model);

  std::string name() const override { return "Halcyon"; }
  std::vector<int64_t> lags() const override { return system_->ages; }
  at::Tensor analyse(const verify::Network& network, const at::Tensor& values,
                     const std::vector<int64_t>& times) override;

 private:
  std::shared_ptr<const RegionalSystem> system_;
  RegionalModel model_;
};

}  // namespace halcyon::assimilation
