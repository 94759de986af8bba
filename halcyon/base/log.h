// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

// Log lines go to stderr, so that stdout stays free for results: log::info("read {} rows", n).
namespace halcyon::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

// "debug", "info", "warn", "error" or "off".
void set_level(std::string_view level);

}  // namespace halcyon::log
