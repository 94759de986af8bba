// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/json_text.h"

#include <fmt/format.h>

#include <set>
#include <stdexcept>
#include <vector>

namespace halcyon {
using nlohmann::json;

namespace {

constexpr int kDeepest = 64;

struct Trouble : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

JsonText parse_json(std::string_view text) {
  const auto failed = [](std::string trouble) {
    return JsonText{json(json::value_t::discarded), std::move(trouble)};
  };
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    return failed(fmt::format("a NUL at byte {}", nul));
  std::vector<std::set<std::string>> keys(kDeepest + 1);  // of the open object at each depth
  const auto watch = [&](int depth, json::parse_event_t event, const json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (depth >= kDeepest) throw Trouble("it is nested too deeply");
        keys[static_cast<std::size_t>(depth) + 1].clear();
        break;
      case json::parse_event_t::key:
        if (!keys[static_cast<std::size_t>(depth)].insert(value.get<std::string>()).second)
          throw Trouble(fmt::format("the key \"{}\" occurs twice", value.get<std::string>()));
        break;
      default:
        break;
    }
    return true;
  };
  try {
    return {json::parse(text, watch), ""};
  } catch (const json::parse_error& error) {
    return failed(fmt::format("it breaks off or goes wrong at byte {}", error.byte));
  } catch (const json::exception&) {
    return failed("it holds a number out of range");
  } catch (const Trouble& trouble) {
    return failed(trouble.what());
  }
}

}  // namespace halcyon
