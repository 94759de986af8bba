// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <string>

#include "halcyon/base/error.h"

namespace halcyon::log {
namespace {

// The library owns the default logger's sink once, at load time.
const bool installed = [] {
  auto logger = spdlog::stderr_color_mt("halcyon");
  logger->set_pattern("%H:%M:%S %^%l%$ %v");
  spdlog::set_default_logger(std::move(logger));
  return true;
}();

}  // namespace

void set_level(std::string_view level) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  HALCYON_CHECK(parsed != spdlog::level::off || level == "off", "log.set_level",
                "expected debug, info, warn, error or off, got {}", level);
  spdlog::set_level(parsed);
}

}  // namespace halcyon::log
