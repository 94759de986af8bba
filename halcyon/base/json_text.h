// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace halcyon {

struct JsonText {
  nlohmann::json value;  // discarded where there is trouble
  std::string trouble;   // what is wrong with the text; empty when nothing is
};

// Parses JSON that a file holds. Stricter than the library: a NUL does not end the text but is an
// error, as are a key that occurs twice in an object and nesting deeper than 64. Never throws for
// what the text says.
JsonText parse_json(std::string_view text);

}  // namespace halcyon
