// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/config_tree.h"

#include <yaml-cpp/emitter.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>

#include "halcyon/base/error.h"

namespace halcyon::config {
namespace {

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxValues = 100'000;

// Builds the tree from the parser's events: duplicate keys, which yaml-cpp's own tree hides, and
// growth by aliases are caught as they come.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(Document& document, std::string origin)
      : document_(document), origin_(std::move(origin)) {}

  std::unique_ptr<Value> take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(Value::Kind::null, mark, ""), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto known = anchors_.find(anchor);
    auto copy = make(Value::Kind::null, mark, "");
    if (known == anchors_.end()) fail(*copy, "an alias inside its own anchor");
    values_ += known->second.count;
    check_size(*copy);
    if (static_cast<int>(open_.size()) + known->second.depth > kMaxDepth) fail_depth(*copy);
    if (!open_.empty()) {
      open_.back().deepest = std::max(open_.back().deepest, known->second.depth + 1);
    }
    add(known->second.value->clone(), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    auto value = make(Value::Kind::scalar, mark, tag);
    value->text = text;
    value->plain = tag != "!";
    if (value->plain && (text == "~" || text == "null" || text == "Null" || text == "NULL")) {
      value->kind = Value::Kind::null;
    }
    add(std::move(value), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(make(Value::Kind::list, mark, tag), anchor);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(make(Value::Kind::map, mark, tag), anchor);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Open {
    std::unique_ptr<Value> value;
    YAML::anchor_t anchor;
    int64_t first;    // values made before it
    int deepest = 1;  // levels below and with it
    std::string key;  // of a map: the key whose value comes next
    int key_line = 0;
    bool has_key = false;
  };
  struct Anchor {
    std::unique_ptr<Value> value;
    int64_t count;
    int depth;
  };

  [[noreturn]] void fail(const Value& at, const std::string& what) const {
    document_.fail(at, "", what);
  }
  [[noreturn]] void fail_depth(const Value& at) const {
    fail(at, fmt::format("expected at most {} levels", kMaxDepth));
  }
  void check_size(const Value& at) const {
    if (values_ > kMaxValues) fail(at, fmt::format("expected at most {} values", kMaxValues));
  }
  std::unique_ptr<Value> make(Value::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    auto value = std::make_unique<Value>();
    value->kind = kind;
    value->line = mark.line + 1;
    value->origin = origin_;
    if (!tag.empty() && tag != "?" && tag != "!") {
      fail(*value, fmt::format("tags are not supported, got '{}'", tag));
    }
    ++values_;
    check_size(*value);
    return value;
  }
  void begin(std::unique_ptr<Value> value, YAML::anchor_t anchor) {
    if (static_cast<int>(open_.size()) >= kMaxDepth) fail_depth(*value);
    open_.push_back({std::move(value), anchor, values_ - 1, 1, {}, 0, false});
  }
  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (!open_.empty()) open_.back().deepest = std::max(open_.back().deepest, done.deepest + 1);
    if (done.anchor != 0) {
      anchors_[done.anchor] = {done.value->clone(), values_ - done.first, done.deepest};
      values_ += values_ - done.first;
      check_size(*done.value);
    }
    add(std::move(done.value), 0);
  }
  void add(std::unique_ptr<Value> value, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = {value->clone(), 1, 0};
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    Open& parent = open_.back();
    if (parent.value->kind == Value::Kind::list) {
      parent.value->items.push_back(std::move(value));
    } else if (!parent.has_key) {
      if (value->kind != Value::Kind::scalar) fail(*value, "expected a text as key");
      if (const Value* first = parent.value->find(value->text)) {
        fail(*value, fmt::format("duplicate key '{}', first on line {}", value->text, first->line));
      }
      parent.key = value->text;
      parent.key_line = value->line;
      parent.has_key = true;
    } else {
      // the parser sees that a value is missing only at the next token
      if (value->kind == Value::Kind::null) value->line = parent.key_line;
      parent.value->entries.emplace_back(std::move(parent.key), std::move(value));
      parent.has_key = false;
    }
  }

  Document& document_;
  std::string origin_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Anchor> anchors_;
  std::unique_ptr<Value> root_;
  int64_t values_ = 0;
};

std::unique_ptr<Value> parse_one(std::string_view text, Document& document,
                                 const std::string& origin) {
  Value place;
  place.origin = origin;
  TreeBuilder builder(document, origin);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return nullptr;
    auto root = builder.take();
    TreeBuilder rest(document, origin);
    if (parser.HandleNextDocument(rest)) {
      place.line = root->line;
      document.fail(place, "", "expected one YAML document, got several");
    }
    return root;
  } catch (const YAML::Exception& e) {
    place.line = e.mark.is_null() ? 1 : e.mark.line + 1;
    document.fail(place, "", "not YAML: " + e.msg);
  }
}

void emit(YAML::Emitter& out, const nlohmann::ordered_json& value) {
  if (value.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      out << YAML::Key << key << YAML::Value;
      emit(out, item);
    }
    out << YAML::EndMap;
  } else if (value.is_array()) {
    const bool flat = std::none_of(value.begin(), value.end(),
                                   [](const auto& item) { return item.is_structured(); });
    if (flat) out << YAML::Flow;
    out << YAML::BeginSeq;
    for (const auto& item : value) emit(out, item);
    out << YAML::EndSeq;
  } else if (value.is_string()) {
    out << YAML::DoubleQuoted << value.get<std::string>();
  } else if (value.is_null()) {
    out << YAML::Null;
  } else {
    out << value.dump();  // JSON's numbers and booleans are YAML's
  }
}

}  // namespace

Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return value.get();
  }
  return nullptr;
}

std::unique_ptr<Value> Value::clone() const {
  auto copy = std::make_unique<Value>();
  copy->kind = kind;
  copy->text = text;
  copy->plain = plain;
  copy->line = line;
  copy->origin = origin;
  for (const auto& item : items) copy->items.push_back(item->clone());
  for (const auto& [key, value] : entries) copy->entries.emplace_back(key, value->clone());
  return copy;
}

void Document::fail(const Value& at, std::string_view section, std::string_view what) const {
  std::string place = at.origin.empty() ? fmt::format("{}:{}", name, std::max(at.line, 1))
                                        : fmt::format("--set {}", at.origin);
  if (!section.empty()) place += fmt::format(": [{}]", section);
  throw Error(ErrorKind::configuration, section.empty() ? fmt::format("{}: {}", place, what)
                                                        : place + " " + std::string(what));
}

void parse_yaml(std::string_view text, Document& document) {
  auto root = parse_one(text, document, "");
  if (root == nullptr || root->kind == Value::Kind::null) {
    document.root.kind = Value::Kind::map;
    return;
  }
  if (root->kind != Value::Kind::map) document.fail(*root, "", "expected keys and values");
  document.root = std::move(*root);
}

void apply_override(const std::string& setting, Document& document) {
  Value place;
  place.origin = setting;
  const auto fail = [&](const std::string& what) { document.fail(place, "", what); };
  const std::size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) fail("expected key=value");
  auto value = parse_one(std::string_view(setting).substr(equals + 1), document, setting);
  if (value == nullptr) {
    value = std::make_unique<Value>();
    value->origin = setting;
  }

  std::string_view path = std::string_view(setting).substr(0, equals);
  Value* at = &document.root;
  for (int depth = 1;; ++depth) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    const std::string key(path.substr(0, dot));
    if (key.empty()) fail("expected a name between the dots");
    if (depth > kMaxDepth) fail(fmt::format("expected at most {} levels", kMaxDepth));
    std::unique_ptr<Value>* slot = nullptr;
    if (at->kind == Value::Kind::list) {
      std::size_t index = 0;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
      if (error != std::errc() || end != key.data() + key.size() || index >= at->items.size()) {
        fail(fmt::format("expected an item from 0 to {}, got '{}'",
                         static_cast<int64_t>(at->items.size()) - 1, key));
      }
      slot = &at->items[index];
    } else if (at->kind == Value::Kind::scalar) {
      fail(fmt::format("'{}' is below a plain value", key));
    } else {
      at->kind = Value::Kind::map;
      auto entry = std::find_if(at->entries.begin(), at->entries.end(),
                                [&](const Value::Entry& e) { return e.first == key; });
      if (entry == at->entries.end()) {
        auto fresh = std::make_unique<Value>();
        fresh->origin = setting;
        entry = at->entries.emplace(at->entries.end(), key, std::move(fresh));
      }
      slot = &entry->second;
    }
    if (dot == path.size()) {
      *slot = std::move(value);
      return;
    }
    at = slot->get();
    path.remove_prefix(dot + 1);
  }
}

std::string to_yaml(const nlohmann::ordered_json& value) {
  YAML::Emitter out;
  emit(out, value);
  return std::string(out.c_str()) + "\n";
}

}  // namespace halcyon::config
