// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/config.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <type_traits>

#include "halcyon/base/config_tree.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/patterns.h"
#include "halcyon/base/suggest.h"
#include "halcyon/base/text.h"

namespace halcyon::config {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 20;

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;

std::string join(const std::string& section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

std::string shown(const Value& value) {
  switch (value.kind) {
    case Value::Kind::null:
      return "nothing";
    case Value::Kind::scalar:
      return fmt::format("{}{}{}", value.plain ? "'" : "the text \"", value.text,
                         value.plain ? "'" : "\"");
    case Value::Kind::list:
      return "a list";
    case Value::Kind::map:
      return "a section";
  }
  return "";
}

// The whole text as a number; no hexadecimal, no NaN.
std::optional<double> number(const Value& value) {
  if (value.kind != Value::Kind::scalar || !value.plain) return std::nullopt;
  std::string_view text = value.text;
  if (text.starts_with('+')) text.remove_prefix(1);
  if (text == ".inf" || text == ".Inf") return std::numeric_limits<double>::infinity();
  if (text == "-.inf" || text == "-.Inf") return -std::numeric_limits<double>::infinity();
  double out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && std::isfinite(out) ? std::optional(out) : std::nullopt;
}

std::optional<int64_t> integer(const Value& value) {
  if (value.kind != Value::Kind::scalar || !value.plain) return std::nullopt;
  std::string_view text = value.text;
  if (text.starts_with('+')) text.remove_prefix(1);
  int64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc() && end == text.data() + text.size()) return out;
  const auto real = number(value);  // 1e5 is a whole number too
  if (real && std::abs(*real) < 9e15 && *real == std::floor(*real)) {
    return static_cast<int64_t>(*real);
  }
  return std::nullopt;
}

std::string describe(const Limits& limits) {
  if (limits.open) return fmt::format(" above {}", limits.low);
  if (std::isinf(limits.high)) return fmt::format(" of at least {}", limits.low);
  if (std::isinf(limits.low)) return fmt::format(" of at most {}", limits.high);
  return fmt::format(" from {} to {}", limits.low, limits.high);
}

// Converts values of one key; what cannot be converted fails with the key's place.
struct Converter {
  const Document& document;
  std::string section;
  Limits limits;

  [[noreturn]] void expected(const Value& value, std::string_view what) const {
    document.fail(value, section, fmt::format("expected {}, got {}", what, shown(value)));
  }
  template <class T>
  T in_range(const Value& value, T number_found, std::string_view noun) const {
    const auto x = static_cast<double>(number_found);
    const bool inside = (limits.open ? x > limits.low : x >= limits.low) && x <= limits.high;
    if (!inside) expected(value, fmt::format("{}{}", noun, describe(limits)));
    return number_found;
  }

  template <class T>
  T convert(const Value& value) const {
    if constexpr (is_vector<T>) {
      T all;
      if (value.kind == Value::Kind::list) {
        for (const auto& item : value.items) {
          all.push_back(convert<typename T::value_type>(*item));
        }
      } else {
        all.push_back(convert<typename T::value_type>(value));
      }
      return all;
    } else if constexpr (std::is_same_v<T, bool>) {
      const bool scalar = value.kind == Value::Kind::scalar && value.plain;
      if (scalar && (value.text == "true" || value.text == "True")) return true;
      if (scalar && (value.text == "false" || value.text == "False")) return false;
      expected(value, "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      const auto found = integer(value);
      if (!found) expected(value, "a whole number");
      if (*found < std::numeric_limits<T>::min() || *found > std::numeric_limits<T>::max()) {
        expected(value, fmt::format("a whole number of {} bits", 8 * sizeof(T)));
      }
      return in_range(value, static_cast<T>(*found), "a whole number");
    } else if constexpr (std::is_floating_point_v<T>) {
      const auto found = number(value);
      if (!found) expected(value, "a number");
      return in_range(value, static_cast<T>(*found), "a number");
    } else {
      if (value.kind != Value::Kind::scalar) {
        expected(value, std::is_same_v<T, fs::path> ? "a path" : "a text");
      }
      if constexpr (std::is_same_v<T, fs::path>) {
        if (value.text.empty()) expected(value, "a path");
        const fs::path path(value.text);
        return value.origin.empty() && path.is_relative()
                   ? (document.folder / path).lexically_normal()
                   : path;
      } else {
        return value.text;
      }
    }
  }
};

template <class T>
nlohmann::json to_json(const T& value) {
  if constexpr (is_vector<T>) {
    auto list = nlohmann::json::array();
    for (const auto& item : value) list.push_back(to_json<typename T::value_type>(item));
    return list;
  } else if constexpr (std::is_same_v<T, fs::path>) {
    return printable(value.native());
  } else if constexpr (std::is_same_v<T, std::string>) {
    return printable(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    // JSON has no infinity
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return value;
  } else {
    return value;
  }
}

// Sections of a map are reached through its own children, all else through the recorded answers.
nlohmann::ordered_json resolve(const Value& map) {
  auto out = nlohmann::ordered_json::object();
  for (const auto& key : map.asked) {
    const Value* child = map.find(key);
    if (map.answers.contains(key)) {
      out[key] = map.answers[key];
    } else if (child != nullptr && child->kind == Value::Kind::map) {
      out[key] = resolve(*child);
    } else if (child != nullptr && child->kind == Value::Kind::list) {
      out[key] = nlohmann::ordered_json::array();
      for (const auto& item : child->items) out[key].push_back(resolve(*item));
    }
  }
  return out;
}

void collect_unknown(const Document& document, const Value& map, const std::string& section,
                     std::vector<std::string>& lines) {
  for (const auto& [key, child] : map.entries) {
    if (std::find(map.asked.begin(), map.asked.end(), key) == map.asked.end()) {
      try {
        document.fail(*child, section,
                      fmt::format("unknown key '{}'{}", key, did_you_mean(key, map.asked)));
      } catch (const Error& e) {
        lines.emplace_back(e.what());
      }
    } else if (map.answers.contains(key)) {
      continue;
    } else if (child->kind == Value::Kind::map) {
      collect_unknown(document, *child, join(section, key), lines);
    } else if (child->kind == Value::Kind::list) {
      for (std::size_t i = 0; i < child->items.size(); ++i) {
        collect_unknown(document, *child->items[i], fmt::format("{}[{}]", join(section, key), i),
                        lines);
      }
    }
  }
}

}  // namespace

Node::Node(std::shared_ptr<Document> document, Value* value, std::string section)
    : document_(std::move(document)), value_(value), section_(std::move(section)) {}

Value* Node::find(std::string_view key, bool needed) const {
  auto& asked = value_->asked;
  if (std::find(asked.begin(), asked.end(), key) == asked.end()) asked.emplace_back(key);
  Value* child = value_->find(key);
  if (child != nullptr && child->kind != Value::Kind::null) return child;
  if (needed) {
    std::vector<std::string> strangers;
    for (const auto& [name, unused] : value_->entries) {
      if (std::find(asked.begin(), asked.end(), name) == asked.end()) strangers.push_back(name);
    }
    const std::string near = nearest(key, strangers);
    std::string what = child == nullptr ? fmt::format("missing key '{}'", key)
                                        : fmt::format("key '{}' has no value", key);
    if (!near.empty()) {
      what += fmt::format(" (found '{}' on line {})", near, value_->find(near)->line);
    }
    document_->fail(child == nullptr ? *value_ : *child, section_, what);
  }
  return nullptr;
}

bool Node::has(std::string_view key) const {
  return find(key, false) != nullptr;
}

std::vector<std::string> Node::keys() const {
  std::vector<std::string> names;
  names.reserve(value_->entries.size());
  for (const auto& [name, unused] : value_->entries) names.push_back(name);
  return names;
}

template <class T>
T Node::required(std::string_view key, Limits limits) const {
  const Value* value = find(key, true);
  T out = Converter{*document_, join(section_, key), limits}.convert<T>(*value);
  value_->answers[std::string(key)] = to_json<T>(out);
  return out;
}

template <class T>
T Node::optional(std::string_view key, T fallback, Limits limits) const {
  if (find(key, false) != nullptr) return required<T>(key, limits);
  value_->answers[std::string(key)] = to_json<T>(fallback);
  return fallback;
}

template <class T>
std::optional<T> Node::maybe(std::string_view key, Limits limits) const {
  if (find(key, false) != nullptr) return required<T>(key, limits);
  value_->answers[std::string(key)] = nullptr;
  return std::nullopt;
}

#define HALCYON_CONFIG_TYPE(...)                                                                 \
  template __VA_ARGS__ Node::required<__VA_ARGS__>(std::string_view, Limits) const;              \
  template __VA_ARGS__ Node::optional<__VA_ARGS__>(std::string_view, __VA_ARGS__, Limits) const; \
  template std::optional<__VA_ARGS__> Node::maybe<__VA_ARGS__>(std::string_view, Limits) const;
#define HALCYON_CONFIG_TYPES(T) HALCYON_CONFIG_TYPE(T) HALCYON_CONFIG_TYPE(std::vector<T>)
HALCYON_CONFIG_TYPES(bool)
HALCYON_CONFIG_TYPES(int)
HALCYON_CONFIG_TYPES(int64_t)
HALCYON_CONFIG_TYPES(float)
HALCYON_CONFIG_TYPES(double)
HALCYON_CONFIG_TYPES(std::string)
HALCYON_CONFIG_TYPES(fs::path)
#undef HALCYON_CONFIG_TYPES
#undef HALCYON_CONFIG_TYPE

std::size_t Node::pick(std::string_view key, const std::vector<std::string>& names,
                       std::optional<std::size_t> fallback) const {
  if (fallback && find(key, false) == nullptr) {
    value_->answers[std::string(key)] = names[*fallback];
    return *fallback;
  }
  const auto text = required<std::string>(key);
  const auto found = std::find(names.begin(), names.end(), text);
  if (found == names.end()) {
    const std::string near = nearest(text, names);
    fail(key, fmt::format("expected one of {}, got '{}'{}", fmt::join(names, ", "), text,
                          near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
  }
  return static_cast<std::size_t>(found - names.begin());
}

int64_t Node::time(std::string_view key) const {
  const auto text = required<std::string>(key);
  try {
    return parse_time(text);
  } catch (const Error& e) {
    fail(key, e.what());
  }
}

int64_t Node::duration(std::string_view key) const {
  const auto text = required<std::string>(key);
  try {
    return parse_duration(text);
  } catch (const Error& e) {
    fail(key, e.what());
  }
}

int64_t Node::duration(std::string_view key, int64_t fallback) const {
  if (has(key)) return duration(key);
  value_->answers[std::string(key)] = format_duration(fallback);
  return fallback;
}

TimeRange Node::time_range(std::string_view key) const {
  const Node range = section(key);
  const int64_t start = range.time("start"), end = range.time("end"), step = range.duration("step");
  range.check(step > 0, "step", "expected a step above zero");
  range.check(end >= start, "end", "expected an end at or after the start {}", format_time(start));
  return {start, end, step};
}

fs::path Node::input_file(std::string_view key) const {
  const auto path = required<fs::path>(key);
  std::error_code error;
  check(fs::is_regular_file(path, error) && ::access(path.c_str(), R_OK) == 0, key,
        "no readable file {}", path.string());
  return path;
}

std::vector<fs::path> Node::input_files(std::string_view key) const {
  std::vector<fs::path> files;
  std::set<std::string> seen;
  for (const auto& pattern : required<std::vector<fs::path>>(key)) {
    const auto found = matching_files(pattern);
    check(!found.empty(), key, "no file matches {}", pattern.string());
    for (const auto& file : found) {
      if (seen.insert(file.native()).second) files.push_back(file);
    }
  }
  check(!files.empty(), key, "expected at least one file");
  for (const auto& file : files) {
    std::error_code error;
    check(fs::is_regular_file(file, error) && ::access(file.c_str(), R_OK) == 0, key,
          "no readable file {}", file.string());
  }
  return files;
}

Node Node::section(std::string_view key) const {
  Value* child = find(key, true);
  if (child->kind != Value::Kind::map) fail(key, "expected a section, got " + shown(*child));
  return {document_, child, join(section_, key)};
}

Node Node::section_or_defaults(std::string_view key) const {
  if (find(key, false) != nullptr) return section(key);
  Value* child = value_->find(key);
  if (child == nullptr) {
    auto fresh = std::make_unique<Value>();
    fresh->line = value_->line;
    fresh->origin = value_->origin;
    child = value_->entries.emplace_back(std::string(key), std::move(fresh)).second.get();
  }
  child->kind = Value::Kind::map;
  return {document_, child, join(section_, key)};
}

std::optional<Node> Node::maybe_section(std::string_view key) const {
  if (find(key, false) != nullptr) return section(key);
  value_->answers[std::string(key)] = nullptr;
  return std::nullopt;
}

std::vector<Node> Node::sections(std::string_view key) const {
  std::vector<Node> nodes;
  const Value* list = find(key, false);
  if (list == nullptr) {
    value_->answers[std::string(key)] = nlohmann::json::array();
    return nodes;
  }
  if (list->kind != Value::Kind::list) fail(key, "expected a list, got " + shown(*list));
  for (const auto& item : list->items) {
    const std::string name = fmt::format("{}[{}]", join(section_, key), nodes.size());
    if (item->kind != Value::Kind::map) {
      document_->fail(*item, name, "expected a section, got " + shown(*item));
    }
    nodes.push_back({document_, item.get(), name});
  }
  return nodes;
}

void Node::fail(std::string_view key, std::string_view what) const {
  const Value* child = value_->find(key);
  document_->fail(child == nullptr ? *value_ : *child, join(section_, key), what);
}

void Node::finish() const {
  std::vector<std::string> lines;
  collect_unknown(*document_, *value_, section_, lines);
  if (!lines.empty()) {
    throw Error(ErrorKind::configuration, fmt::format("{}", fmt::join(lines, "\n")));
  }
}

nlohmann::ordered_json Node::resolved() const {
  return resolve(*value_);
}

std::string Node::resolved_yaml() const {
  return to_yaml(resolved());
}

const fs::path& Node::file() const {
  return document_->file;
}

Node parse(std::string_view text, const std::string& name, const fs::path& folder,
           const std::vector<std::string>& overrides) {
  auto document = std::make_shared<Document>();
  document->name = name;
  document->folder = folder;
  if (text.size() > kMaxFile) {
    document->fail({}, "", fmt::format("expected at most {} bytes, got {}", kMaxFile, text.size()));
  }
  if (const auto fault = text_fault(text)) {
    Value place;
    place.line = static_cast<int>(fault->line);
    document->fail(place, "", fmt::format("character {}: {}", fault->column, fault->what));
  }
  parse_yaml(text, *document);
  for (const auto& setting : overrides) apply_override(setting, *document);
  return {document, &document->root, ""};
}

Node load(const fs::path& path, const std::vector<std::string>& overrides) {
  std::string text;
  try {
    text = read_text(path, kMaxFile);
  } catch (const Error& e) {
    throw Error(ErrorKind::configuration, e.what());
  }
  Node node = parse(text, path.string(), path.parent_path(), overrides);
  node.document_->file = path;
  return node;
}

}  // namespace halcyon::config
