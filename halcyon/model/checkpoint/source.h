// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "halcyon/base/error.h"

namespace halcyon::checkpoint {

// Text out of a file, made safe to print: other than printable ASCII becomes '?', long texts are
// cut.
std::string printable(std::string_view text);

// Where a reader stands ("x.mdlus: model.pt"), so that every refusal names the file and the place.
class Source {
 public:
  Source(std::string operation, std::string place)
      : operation_(std::move(operation)), place_(std::move(place)) {}

  Source inside(std::string_view member) const {
    return {operation_, place_ + ": " + printable(member)};
  }
  [[noreturn]] void refuse(std::string_view reason) const {
    throw_error(ErrorKind::input, operation_, place_ + ": " + std::string(reason));
  }
  // Throws Error(input) unless holds.
  template <class... Args>
  void check(bool holds, fmt::format_string<Args...> format, Args&&... args) const {
    if (!holds) [[unlikely]] {
      refuse(fmt::format(format, std::forward<Args>(args)...));
    }
  }
  const std::string& operation() const { return operation_; }
  const std::string& place() const { return place_; }

 private:
  std::string operation_, place_;
};

}  // namespace halcyon::checkpoint
