// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/config.h"

#include "halcyon/ops/tuning/autotuner.h"

namespace halcyon::tuning {

Config Config::from(const config::Node& run) {
  Config c;
  const bool wanted = run.has("tuning") || cache_file().has_value();
  const auto section = run.section_or_defaults("tuning");
  c.enabled = section.optional<bool>("enabled", wanted);
  c.cache = section.maybe<std::filesystem::path>("cache");
  section.check(!c.cache || !c.cache->empty(), "cache", "expected the name of a file, got none");
  return c;
}

void Config::apply() const {
  if (!enabled) return disable_autotuner();
  if (cache) use_cache_file(cache);
  use_autotuner();
}

}  // namespace halcyon::tuning
