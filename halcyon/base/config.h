// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "halcyon/base/time.h"

// Typed run configuration in YAML. A program asks for every key it knows, and then finish() refuses
// the rest, so that a run fails on a misspelt key before any work starts:
//
//   config::Node run = config::load("run.yaml", overrides);
//   config::Node training = run.section("training");
//   const auto steps = training.required<int64_t>("steps", config::at_least(1));
//   const auto rate = training.optional<double>("learning_rate", 3e-4, config::positive());
//   run.finish();
//   write_text("resolved.yaml", run.resolved_yaml());
//
// Everything wrong with the file is Error(configuration), which begins "FILE:LINE: [section]".
namespace halcyon::config {

struct Value;
struct Document;

// What a number may be; NaN never passes.
struct Limits {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open = false;  // low itself is excluded
};
inline Limits at_least(double low) {
  return {.low = low};
}
inline Limits between(double low, double high) {
  return {.low = low, .high = high};
}
inline Limits positive() {
  return {.low = 0, .open = true};
}

template <class E>
using Names = std::vector<std::pair<std::string, E>>;

// A map of the file (its root or a section): a light handle that keeps the document alive. Keys
// count as known from the moment they are asked for.
//
// T: bool, int, int64_t, float, double, std::string, std::filesystem::path, or std::vector of one
// of these (a single value stands for a list of one). Paths are relative to the YAML file's folder;
// those that come from an override, to the working directory. Limits hold for each number.
class Node {
 public:
  bool has(std::string_view key) const;   // present and not null
  std::vector<std::string> keys() const;  // all keys of a map of free names; marks none as known
  const std::string& section_name() const { return section_; }

  template <class T>
  T required(std::string_view key, Limits limits = {}) const;
  template <class T>
  T optional(std::string_view key, T fallback, Limits limits = {}) const;
  // Absent or null: nothing.
  template <class T>
  std::optional<T> maybe(std::string_view key, Limits limits = {}) const;

  // One of the names; an unknown one is an error that lists them.
  template <class E>
  E choice(std::string_view key, const Names<E>& names) const;
  template <class E>
  E choice(std::string_view key, const Names<E>& names, E fallback) const;

  // Seconds since 1970 / a number of seconds (base/time.h).
  int64_t time(std::string_view key) const;
  int64_t duration(std::string_view key) const;
  int64_t duration(std::string_view key, int64_t fallback) const;
  // A section with start, end and step.
  TimeRange time_range(std::string_view key) const;

  // A file that exists and can be read.
  std::filesystem::path input_file(std::string_view key) const;
  // One or more names or patterns (* ? [..]) as files that exist, each pattern's in alphabetical
  // order; a pattern that matches nothing is an error.
  std::vector<std::filesystem::path> input_files(std::string_view key) const;

  Node section(std::string_view key) const;                       // must be there
  Node section_or_defaults(std::string_view key) const;           // absent: an empty one
  std::optional<Node> maybe_section(std::string_view key) const;  // absent or null: none
  std::vector<Node> sections(std::string_view key) const;         // a list of maps, maybe absent

  // Throws with the key's own place: training.fail("steps", "expected a multiple of 4, got 7").
  [[noreturn]] void fail(std::string_view key, std::string_view what) const;
  template <class... Args>
  void check(bool holds, std::string_view key, fmt::format_string<Args...> what,
             Args&&... args) const {
    if (!holds) fail(key, fmt::format(what, std::forward<Args>(args)...));
  }

  // Throws, naming every key of this section and below that was never asked for.
  void finish() const;

  // Every key asked for so far with the value in force, defaults included: for the run's record.
  nlohmann::ordered_json resolved() const;
  std::string resolved_yaml() const;
  const std::filesystem::path& file() const;  // the YAML file; empty when parsed from a text

 private:
  friend Node parse(std::string_view, const std::string&, const std::filesystem::path&,
                    const std::vector<std::string>&);
  friend Node load(const std::filesystem::path&, const std::vector<std::string>&);
  Node(std::shared_ptr<Document> document, Value* value, std::string section);

  Value* find(std::string_view key, bool needed) const;
  std::size_t pick(std::string_view key, const std::vector<std::string>& names,
                   std::optional<std::size_t> fallback) const;

  std::shared_ptr<Document> document_;
  Value* value_;
  std::string section_;  // "training.optimizer", "observations[2]"; empty for the root
};

// Reads a YAML file of at most 1 MiB and applies overrides "a.b.c=value" (a list's items by their
// number: "observations.0.file=x.nc"); the value is YAML. Duplicate keys, tags, several documents,
// more than 32 levels or 100,000 values (aliases written out) are errors.
Node load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

// The same from a text; name stands for the file in messages, paths are relative to folder.
Node parse(std::string_view text, const std::string& name, const std::filesystem::path& folder,
           const std::vector<std::string>& overrides = {});

template <class E>
E Node::choice(std::string_view key, const Names<E>& names) const {
  std::vector<std::string> texts;
  for (const auto& [name, unused] : names) texts.push_back(name);
  return names[pick(key, texts, std::nullopt)].second;
}

template <class E>
E Node::choice(std::string_view key, const Names<E>& names, E fallback) const {
  std::vector<std::string> texts;
  std::optional<std::size_t> place;
  for (const auto& [name, value] : names) {
    if (value == fallback) place = texts.size();
    texts.push_back(name);
  }
  return names[pick(key, texts, place)].second;
}

}  // namespace halcyon::config
