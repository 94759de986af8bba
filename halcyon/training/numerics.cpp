// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/numerics.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

namespace halcyon::training {

std::string first_not_finite(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || !at::isFloatingType(tensor.scalar_type())) continue;
    const int64_t good = at::isfinite(tensor.detach()).sum().item<int64_t>();
    if (good != tensor.numel()) {
      return fmt::format("{} ({} of {} values)", name, tensor.numel() - good, tensor.numel());
    }
  }
  return "";
}

Bf16Autocast::Bf16Autocast(at::DeviceType device, bool enabled)
    : enabled_(enabled),
      device_(device),
      before_(at::autocast::is_autocast_enabled(device)),
      before_type_(at::autocast::get_autocast_dtype(device)) {
  if (!enabled) return;
  at::autocast::set_autocast_dtype(device, at::kBFloat16);
  at::autocast::set_autocast_enabled(device, true);
  at::autocast::increment_nesting();
}

Bf16Autocast::~Bf16Autocast() {
  if (!enabled_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, before_);
  at::autocast::set_autocast_dtype(device_, before_type_);
}

}  // namespace halcyon::training
