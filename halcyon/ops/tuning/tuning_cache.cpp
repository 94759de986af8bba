// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/tuning_cache.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>

#include "halcyon/base/error.h"
#include "halcyon/base/file_lock.h"
#include "halcyon/base/files.h"
#include "halcyon/base/json_text.h"
#include "halcyon/base/versions.h"
#include "halcyon/ops/cpu_level.h"

namespace halcyon::tuning {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "halcyon tuning cache";
constexpr std::size_t kLargest = std::size_t{64} << 20;

struct Named {
  std::mutex mutex;
  std::optional<std::filesystem::path> file;  // by the program
};

Named& named() {
  static Named n;
  return n;
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
    auto [content, trouble] = parse_json(read_text(path, kLargest));
    if (!trouble.empty()) why = trouble;
    if (content.is_object() && content.value("format", json()) == kFormat &&
        content.value("choices", json()).is_object())
      return std::move(content);
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

// To a tenth of a microsecond, which nobody would trust more than.
double readable(double milliseconds) {
  return std::round(milliseconds * 1e4) / 1e4;
}

}  // namespace

std::optional<std::filesystem::path> cache_file() {
  {
    const std::lock_guard lock(named().mutex);
    if (named().file) return named().file;
  }
  const char* name = std::getenv("HALCYON_TUNING_CACHE");
  if (name == nullptr || std::string_view(name).find_first_not_of(" \t") == std::string_view::npos)
    return {};
  return name;
}

void use_cache_file(std::optional<std::filesystem::path> file) {
  const std::lock_guard lock(named().mutex);
  named().file = std::move(file);
}

std::optional<Choice> stored_choice(const std::string& operation, const std::string& problem) {
  const auto path = cache_file();
  if (!path) return {};
  const auto content = read(*path, true);
  const json* at = &content.at("choices");
  for (const std::string& name : {std::string(version()), machine(), operation, problem}) {
    if (!at->is_object() || !at->contains(name)) return {};
    at = &at->at(name);
  }
  if (!at->is_object() || !at->value("choice", json()).is_string()) return {};
  Choice choice{at->at("choice"), {}};
  if (const auto times = at->value("milliseconds", json()); times.is_object()) {
    for (const auto& [candidate, time] : times.items())
      if (time.is_number()) choice.milliseconds[candidate] = time;
  }
  return choice;
}

void store_choice(const std::string& operation, const std::string& problem, const Choice& choice) {
  const auto path = cache_file();
  if (!path) return;
  try {
    prepare_folder_of(*path);
    FileLock lock(behind_links(*path).string() + ".lock");  // one, by whatever name it is called
    lock.lock();
    auto content = read(*path, false);
    auto& of_machine = object_in(object_in(content["choices"], version()), machine());
    auto times = json::object();
    for (const auto& [candidate, time] : choice.milliseconds) times[candidate] = readable(time);
    object_in(of_machine, operation)[problem] = {{"choice", choice.candidate},
                                                 {"milliseconds", times}};
    write_text(*path, content.dump(1) + "\n");
  } catch (const Error& error) {
    TORCH_WARN_ONCE("[autotuner] the choice is kept for this process alone: ", error.what());
  }
}

}  // namespace halcyon::tuning
