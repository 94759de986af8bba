// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/spatial_attention.h"

#include <fmt/ranges.h>

#include <map>
#include <mutex>

#include "halcyon/base/error.h"
#include "halcyon/nn/healpix_self_attention.h"
#include "halcyon/nn/self_attention.h"

namespace halcyon {
namespace {

struct Registry {
  Registry() {
    factories["timm"] = [](std::string_view, const SpatialAttentionOptions& options) {
      return std::make_shared<SelfAttentionImpl>(options);
    };
    for (const char* name : kHealpixBackends) {
      factories[name] = [](std::string_view whole, const SpatialAttentionOptions& options) {
        return std::make_shared<HealpixSelfAttentionImpl>(whole, options);
      };
    }
  }

  std::mutex mutex;
  std::map<std::string, SpatialAttentionFactory, std::less<>> factories;
};

Registry& registry() {
  static Registry the;
  return the;
}

}  // namespace

void register_spatial_attention(const std::string& name, SpatialAttentionFactory factory) {
  HALCYON_CHECK(!name.empty() && name.find(':') == std::string::npos, "register_spatial_attention",
                "expected a name without a colon, got \"{}\"", name);
  HALCYON_CHECK(factory, "register_spatial_attention", "expected a factory, got none");
  const std::lock_guard lock(registry().mutex);
  registry().factories[name] = std::move(factory);
}

std::vector<std::string> spatial_attention_names() {
  const std::lock_guard lock(registry().mutex);
  std::vector<std::string> names;
  for (const auto& [name, factory] : registry().factories) names.push_back(name);
  return names;
}

std::shared_ptr<SpatialAttentionBase> make_spatial_attention(
    std::string_view name, const SpatialAttentionOptions& options) {
  SpatialAttentionFactory factory;
  {
    const std::lock_guard lock(registry().mutex);
    const auto found = registry().factories.find(name.substr(0, name.find(':')));
    if (found != registry().factories.end()) factory = found->second;
  }
  HALCYON_CHECK(factory, "attention_backend", "expected one of {}, got \"{}\"",
                fmt::join(spatial_attention_names(), ", "), name);
  return factory(name, options);
}

}  // namespace halcyon
