// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/checkpoint.h"

#include <c10/core/GradMode.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/base/json_text.h"
#include "halcyon/base/log.h"
#include "halcyon/base/safetensors.h"

namespace halcyon::training {
namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "halcyon training 1";

// "step-" digits ".safetensors"
bool is_checkpoint(const std::string& name) {
  constexpr std::string_view head = "step-", tail = ".safetensors";
  return name.size() > head.size() + tail.size() && name.starts_with(head) &&
         name.ends_with(tail) &&
         std::all_of(name.begin() + head.size(), name.end() - tail.size(),
                     [](char c) { return c >= '0' && c <= '9'; });
}

std::string describe(at::ScalarType type, at::IntArrayRef sizes) {
  return fmt::format("{} [{}]", c10::toString(type), fmt::join(sizes, ", "));
}

// Into the state, one tensor at a time: no second copy of it in memory.
nlohmann::json restore(const SafetensorsFile& content, const fs::path& path,
                       const StateTensors& state) {
  const auto& metadata = content.metadata();
  const auto format = metadata.find("format");
  HALCYON_CHECK_KIND(format != metadata.end() && format->second == kFormat, input, "restore",
                     "{}: expected a training checkpoint ({})", path.string(), kFormat);
  const auto text = metadata.find("progress");
  auto progress = text == metadata.end() ? nlohmann::json() : parse_json(text->second).value;
  HALCYON_CHECK_KIND(progress.is_object(), input, "restore", "{}: its progress is not JSON",
                     path.string());

  std::vector<std::string> wrong;
  for (const auto& [name, tensor] : state) {
    const auto found = content.entries().find(name);
    if (found == content.entries().end()) {
      wrong.push_back("missing " + name);
    } else if (found->second.shape != tensor.sizes().vec() ||
               found->second.dtype != tensor.scalar_type()) {
      wrong.push_back(fmt::format("{}: expected {}, got {}", name,
                                  describe(tensor.scalar_type(), tensor.sizes()),
                                  describe(found->second.dtype, found->second.shape)));
    }
  }
  for (const auto& [name, entry] : content.entries()) {
    if (!state.contains(name)) wrong.push_back("unexpected " + name);
  }
  HALCYON_CHECK_KIND(wrong.empty(), input, "restore", "{} is of another model:\n  {}",
                     path.string(), fmt::join(wrong, "\n  "));

  const c10::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state) {
    at::Tensor target = tensor.detach();
    target.copy_(content.read(name));
  }
  return progress;
}

}  // namespace

StateTensors module_state(const torch::nn::Module& module) {
  StateTensors state;
  for (const auto& item : module.named_parameters()) state["model." + item.key()] = item.value();
  for (const auto& item : module.named_buffers()) {
    if (item.value().defined()) state["model." + item.key()] = item.value();
  }
  return state;
}

void add_state(StateTensors& into, const std::string& prefix, const StateTensors& from) {
  for (const auto& [name, tensor] : from) into[prefix + name] = tensor;
}

Checkpoints::Checkpoints(fs::path folder, int64_t keep) : folder_(std::move(folder)), keep_(keep) {
  std::error_code error;
  fs::create_directories(folder_, error);
  HALCYON_CHECK_KIND(fs::is_directory(folder_), output, "checkpoints", "cannot make the folder {}",
                     folder_.string());
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    const std::size_t end = name.find(".safetensors.");
    if (end == std::string::npos || !name.ends_with(".tmp")) continue;
    if (is_checkpoint(name.substr(0, end) + ".safetensors")) fs::remove(entry.path(), error);
  }
}

void Checkpoints::save(int64_t step, const StateTensors& state,
                       const nlohmann::json& progress) const {
  TensorFile content;
  content.metadata = {{"format", kFormat}, {"progress", progress.dump()}};
  for (const auto& [name, tensor] : state) content.tensors[name] = tensor.detach();
  write_safetensors(folder_ / fmt::format("step-{:09d}.safetensors", step), content);
  const auto files = list();
  std::error_code ignored;
  for (std::size_t i = static_cast<std::size_t>(keep_); i < files.size(); ++i) {
    fs::remove(files[i], ignored);
  }
}

std::vector<fs::path> Checkpoints::list() const {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (is_checkpoint(entry.path().filename().string())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    const std::string x = a.filename().string(), y = b.filename().string();
    return x.size() != y.size() ? x.size() > y.size() : x > y;
  });
  return files;
}

std::optional<nlohmann::json> Checkpoints::restore_newest(const StateTensors& state) const {
  for (const auto& file : list()) {
    std::optional<SafetensorsFile> content;
    try {
      content.emplace(file);
    } catch (const Error& e) {
      log::warn("{}; trying an older checkpoint", e.what());
      continue;
    }
    return restore(*content, file, state);
  }
  return std::nullopt;
}

nlohmann::json restore(const fs::path& path, const StateTensors& state) {
  return restore(SafetensorsFile(path), path, state);
}

}  // namespace halcyon::training
