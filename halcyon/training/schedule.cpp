// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace halcyon::training {

double Schedule::rate(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const auto span = static_cast<double>(std::max<int64_t>(steps - warmup, 1));
  const double part = std::clamp(static_cast<double>(step - warmup) / span, 0.0, 1.0);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * part));
  return peak * (final_fraction + (1 - final_fraction) * cosine);
}

}  // namespace halcyon::training
