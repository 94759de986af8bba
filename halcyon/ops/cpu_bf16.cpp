// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/cpu_bf16.h"

#include <ATen/autocast_mode.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace halcyon {
namespace {

struct Bf16Units {
  bool amx = false, pairs = false;
};

Bf16Units units_of_processor() {
  Bf16Units units;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxBf16 = 1u << 22, kAvx512Bf16 = 1u << 5;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return units;
  units.amx = (d & kAmxBf16) != 0;
  units.pairs = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvx512Bf16) != 0;
#endif
  return units;
}

const Bf16Units& units() {
  static const Bf16Units found = units_of_processor();
  return found;
}

}  // namespace

bool has_fast_bf16() {
  static const bool fast = [] {
    const char* given = std::getenv("HALCYON_FAST_BF16");
    if (given && (std::string_view(given) == "0" || std::string_view(given) == "1"))
      return *given == '1';
#if defined(__x86_64__)
    return units().amx || (units().pairs && __builtin_cpu_is("amd"));
#else
    return true;  // not known: as torch has it
#endif
  }();
  return fast;
}

bool has_fast_bf16_pairs() {
  return units().pairs && !units().amx && has_fast_bf16();
}

std::optional<at::ScalarType> cpu_result_type(at::TensorList inputs) {
  if (at::autocast::is_autocast_enabled(at::kCPU))
    return at::autocast::get_autocast_dtype(at::kCPU);
  const auto type = inputs.front().scalar_type();
  const bool same = std::all_of(inputs.begin(), inputs.end(),
                                [&](const auto& t) { return t.scalar_type() == type; });
  return same ? std::optional(type) : std::nullopt;
}

bool is_bf16_for_float(at::TensorList inputs) {
  const auto plain = [](const at::Tensor& t) {
    return t.device().is_cpu() && t.layout() == at::kStrided &&
           (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
  };
  return !has_fast_bf16() && std::all_of(inputs.begin(), inputs.end(), plain) &&
         cpu_result_type(inputs) == at::kBFloat16;
}

}  // namespace halcyon
