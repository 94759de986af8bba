// SPDX-License-Identifier: Apache-2.0
// halcyon info: what this installation is and has, for a report of a fault or before a long run.
#include <ATen/Parallel.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/halcyon/commands.h"
#include "halcyon/base/device.h"
#include "halcyon/base/text.h"
#include "halcyon/base/versions.h"
#include "halcyon/obs/reader.h"
#include "halcyon/ops/cpu_level.h"

namespace halcyon::cli {
namespace {

nlohmann::ordered_json facts() {
  nlohmann::ordered_json libraries, formats;
  for (const auto& [name, number] : library_versions()) libraries[name] = number;
  for (const auto* format : obs::formats()) formats[format->name] = format->description;
  const auto no_cuda = why_no_cuda();
  return {{"halcyon", version()},
          {"libraries", libraries},
          {"processor", cpu_model()},
          {"kernels", at_level(cpu_level(), "baseline", "AVX2", "AVX-512")},
          {"threads", at::get_num_threads()},
          {"cuda", no_cuda.empty() ? "available" : "not available: " + no_cuda},
          {"observation formats", formats}};
}

void print(const nlohmann::ordered_json& facts) {
  for (const auto& [key, value] : facts.items()) {
    if (!value.is_object()) {
      std::cout << fmt::format("{:21}{}\n", key,
                               value.is_string() ? value.get<std::string>() : json_text(value));
      continue;
    }
    std::cout << key << '\n';
    for (const auto& [name, text] : value.items())
      std::cout << fmt::format("  {:19}{}\n", name, text.get<std::string>());
  }
}

}  // namespace

void add_info(CLI::App& app) {
  auto* command = app.add_subcommand(
      "info", "Print versions, processor, threads, devices and the formats that are read");
  const auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "print JSON");
  command->callback([as_json] {
    const auto all = facts();
    if (*as_json)
      std::cout << json_text(all, 2) << '\n';
    else
      print(all);
  });
}

}  // namespace halcyon::cli
