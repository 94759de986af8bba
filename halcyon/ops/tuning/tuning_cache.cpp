// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/tuning_cache.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "halcyon/base/error.h"
#include "halcyon/base/file_lock.h"
#include "halcyon/base/files.h"
#include "halcyon/base/versions.h"
#include "halcyon/ops/cpu_level.h"

namespace halcyon::tuning {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "halcyon tuning cache";
constexpr std::size_t kLargest = std::size_t{64} << 20;

std::optional<std::filesystem::path> cache_file() {
  const char* name = std::getenv("HALCYON_TUNING_CACHE");
  if (name == nullptr || *name == 0) return {};
  return name;
}

const std::string& machine() {
  static const std::string name =
      cpu_model() + at_level(cpu_level(), ", baseline", ", avx2", ", avx512");
  return name;
}

json empty_cache() {
  return {{"format", kFormat}, {"choices", json::object()}};
}

// What the file holds; nothing if it is not there or is not a cache, which a reader warns of.
json read(const std::filesystem::path& path, bool warn) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return empty_cache();
  std::string why = "something else";
  try {
    auto content = json::parse(read_text(path, kLargest));
    if (content.is_object() && content.value("format", json()) == kFormat &&
        content.value("choices", json()).is_object())
      return content;
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (warn) {
    TORCH_WARN("[autotuner] expected a tuning cache in ", path.string(), ", got ", why,
               ": what is tuned from now on replaces it");
  }
  return empty_cache();
}

// The member, an object in any case.
json& object_in(json& parent, const std::string& name) {
  auto& member = parent[name];
  if (!member.is_object()) member = json::object();
  return member;
}

}  // namespace

std::optional<std::string> stored_choice(const std::string& operation, const std::string& problem) {
  const auto path = cache_file();
  if (!path) return {};
  const auto content = read(*path, true);
  const json* at = &content.at("choices");
  for (const std::string& name : {std::string(version()), machine(), operation, problem}) {
    if (!at->is_object() || !at->contains(name)) return {};
    at = &at->at(name);
  }
  if (!at->is_object() || !at->value("choice", json()).is_string()) return {};
  return at->at("choice").get<std::string>();
}

void store_choice(const std::string& operation, const std::string& problem,
                  const std::string& choice, double seconds) {
  const auto path = cache_file();
  if (!path) return;
  try {
    prepare_folder_of(*path);
    FileLock lock(path->string() + ".lock");
    lock.lock();
    auto content = read(*path, false);
    auto& of_machine = object_in(object_in(content["choices"], version()), machine());
    object_in(of_machine, operation)[problem] = {{"choice", choice},
                                                 {"milliseconds", seconds * 1e3}};
    write_text(*path, content.dump(1) + "\n");
  } catch (const Error& error) {
    TORCH_WARN_ONCE("[autotuner] the choice is kept for this process alone: ", error.what());
  }
}

}  // namespace halcyon::tuning
