// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/switches.h"

#include <array>
#include <atomic>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

struct Preference {
  const char* name;
  long bytes;
};
constexpr std::array<Preference, 3> kPreferences{
    {{"default", 4L << 20}, {"strict", 1L << 20}, {"unrestricted", 64L << 20}}};

std::atomic<bool> fused{false}, kv_parallel{false}, gemm{true}, tiled{true};
std::atomic<std::size_t> memory{0};

}  // namespace

void use_fused_na(bool mode, bool parallel) {
  fused = mode;
  if (mode) kv_parallel = parallel;
}
bool is_fused_na_enabled() {
  return fused;
}
void use_kv_parallelism_in_fused_na(bool mode) {
  kv_parallel = mode;
}
bool is_kv_parallelism_in_fused_na_enabled() {
  return kv_parallel;
}

void set_memory_usage_preference(const std::string& preference) {
  for (std::size_t i = 0; i < kPreferences.size(); ++i) {
    if (preference == kPreferences[i].name) {
      memory = i;
      return;
    }
  }
  throw_error(ErrorKind::argument, "set_memory_usage_preference",
              fmt::format("expected default, strict or unrestricted, got {}", preference));
}
std::string get_memory_usage_preference() {
  return kPreferences[memory].name;
}
long packed_bytes() {
  return kPreferences[memory].bytes;
}

bool enable_gemm_na() {
  return gemm = true;
}
bool disable_gemm_na() {
  return gemm = false;
}
bool is_gemm_na_enabled() {
  return gemm;
}
bool enable_tiled_na() {
  return tiled = true;
}
bool disable_tiled_na() {
  return tiled = false;
}
bool is_tiled_na_enabled() {
  return tiled;
}

}  // namespace halcyon
