// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The parsed YAML behind config::Node; only config*.cpp includes this.
namespace halcyon::config {

struct Value {
  enum class Kind { null, scalar, list, map };
  using Entry = std::pair<std::string, std::unique_ptr<Value>>;

  Kind kind = Kind::null;
  std::string text;    // scalar
  bool plain = true;   // a scalar without quotes, which may be a number
  int line = 0;        // 1-based
  std::string origin;  // the override that set it; empty: the file
  std::vector<std::unique_ptr<Value>> items;
  std::vector<Entry> entries;

  // What the program asked of a map, in order, and the plain values it got.
  std::vector<std::string> asked;
  nlohmann::json answers = nlohmann::json::object();

  Value* find(std::string_view key) const;
  std::unique_ptr<Value> clone() const;
};

struct Document {
  std::string name;
  std::filesystem::path file, folder;
  Value root;

  // Throws Error(configuration) "name:line: [section] what".
  [[noreturn]] void fail(const Value& at, std::string_view section, std::string_view what) const;
};

// Fills document.root, a map (an empty text gives an empty one).
void parse_yaml(std::string_view text, Document& document);
void apply_override(const std::string& setting, Document& document);
std::string to_yaml(const nlohmann::ordered_json& value);

}  // namespace halcyon::config
