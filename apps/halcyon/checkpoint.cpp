// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "apps/halcyon/commands.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/text.h"

namespace halcyon::cli {

namespace {

struct Arguments {
  std::filesystem::path in, out;
  bool as_json = false;
};

// What a reader of the file would like to know, in the order in which it is printed.
nlohmann::ordered_json summary(const Checkpoint& checkpoint) {
  nlohmann::ordered_json bytes = nlohmann::ordered_json::object();
  for (const auto& [name, tensor] : checkpoint.tensors) {
    auto& sum = bytes[c10::toString(tensor.dtype)];
    sum =
        (sum.is_null() ? 0 : sum.get<int64_t>()) +
        c10::multiply_integers(tensor.sizes) * static_cast<int64_t>(c10::elementSize(tensor.dtype));
  }
  return {{"file", printable(checkpoint.path.native())},
          {"container", checkpoint.container},
          {"class", checkpoint.model_class},
          {"sha256", sha256_of_file(checkpoint.path)},
          {"tensors", checkpoint.tensors.size()},
          {"parameters", checkpoint.parameter_count()},
          {"bytes", bytes},
          {"metadata", checkpoint.metadata},
          {"configuration", checkpoint.config}};
}

// 1506070474 -> "1,506,070,474"
std::string grouped(int64_t number) {
  std::string text = fmt::format("{}", number);
  for (auto i = static_cast<int64_t>(text.size()) - 3; i > 0; i -= 3)
    text.insert(static_cast<std::size_t>(i), 1, ',');
  return text;
}

void print(const nlohmann::ordered_json& summary) {
  for (const auto& [key, value] : summary.items()) {
    if (value.is_object()) {
      std::cout << key << (value.empty() ? ":  none\n" : ":\n");
      for (const auto& [name, item] : value.items()) {
        const auto text = key == "bytes"     ? grouped(item.get<int64_t>())
                          : item.is_string() ? item.get<std::string>()
                                             : json_text(item);
        std::cout << fmt::format("  {:<30} {}\n", name, text);
      }
    } else {
      const auto text =
          value.is_string() ? value.get<std::string>() : grouped(value.get<int64_t>());
      std::cout << fmt::format("{:<32} {}\n", key + ":", text);
    }
  }
}

void inspect(const Arguments& arguments) {
  const Checkpoint checkpoint = read_checkpoint(arguments.in);
  const auto facts = summary(checkpoint);
  if (arguments.as_json) {
    std::cout << json_text(facts, 2) << '\n';
  } else {
    print(facts);
  }
  check_complete(checkpoint);
}

void convert(const Arguments& arguments) {
  HALCYON_CHECK(arguments.out.extension() == ".safetensors", "checkpoint convert",
                "expected an output that ends in .safetensors, got {}", arguments.out.string());
  const Checkpoint checkpoint = read_checkpoint(arguments.in);
  save_checkpoint(load_checkpoint(checkpoint), arguments.out, checkpoint.metadata);
  std::cout << fmt::format("{}: {} parameters from {}\n", arguments.out.string(),
                           grouped(checkpoint.parameter_count()), arguments.in.string());
}

}  // namespace

void add_checkpoint(CLI::App& app) {
  auto* group = app.add_subcommand("checkpoint", "Look into and convert the files of models");
  group->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();

  auto* inspecting = group->add_subcommand(
      "inspect",
      "Print what a checkpoint holds; its checksums are verified, and that its tensors are those "
      "of its configuration");
  inspecting->add_option("file", arguments->in, "a .safetensors or .mdlus file")->required();
  inspecting->add_flag("--json", arguments->as_json, "print JSON");
  inspecting->callback([arguments] { inspect(*arguments); });

  auto* converting = group->add_subcommand(
      "convert", "Write a checkpoint anew as safetensors with its configuration in it");
  converting->add_option("in", arguments->in, "a .safetensors or .mdlus file")->required();
  converting->add_option("out", arguments->out, "the .safetensors file to write")->required();
  converting->callback([arguments] { convert(*arguments); });
}

}  // namespace halcyon::cli
