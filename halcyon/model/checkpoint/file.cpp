// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/file.h"

#include <c10/util/Exception.h>

#include <fmt/format.h>

#include <memory>
#include <new>
#include <utility>

#include "halcyon/base/json_text.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/model/checkpoint/mdlus.h"

namespace halcyon {
namespace fs = std::filesystem;
using checkpoint::Blob;
using checkpoint::Source;
using nlohmann::json;

namespace {

// In the metadata of Halcyon's own files.
constexpr const char* kVersionKey = "halcyon_format_version";
constexpr const char* kClassKey = "halcyon_class";
constexpr const char* kConfigKey = "halcyon_config";
constexpr const char* kVersion = "1";

void read_own_metadata(Checkpoint& result, const Source& source) {
  auto& metadata = result.metadata;
  source.check(metadata[kVersionKey] == kVersion, "expected format version {}, got \"{}\"",
               kVersion, checkpoint::printable(metadata[kVersionKey]));
  source.check(metadata[kClassKey] == "HealDA", "holds a model of the class {}; expected HealDA",
               checkpoint::printable(metadata[kClassKey]));
  result.model_class = metadata[kClassKey];
  auto [config, trouble] = parse_json(metadata[kConfigKey]);
  source.check(trouble.empty(), "{} is not a JSON object: {}", kConfigKey, trouble);
  source.check(config.is_object(), "{} is not a JSON object", kConfigKey);
  result.config = std::move(config);
  for (const char* key : {kVersionKey, kClassKey, kConfigKey}) metadata.erase(key);
}

// The configuration beside plain tensors: the arguments alone, or in the form of args.json.
void read_sibling(Checkpoint& result) {
  fs::path sibling = result.path;
  sibling.replace_extension(".json");
  Source("load_checkpoint", result.path.string())
      .check(fs::is_regular_file(sibling),
             "holds no configuration of Halcyon, and there is no {} beside it",
             sibling.filename().string());
  const Source source("load_checkpoint", sibling.string());
  const json content = checkpoint::read_json(Blob::of_file(sibling), source);
  if (content.contains("__args__")) {
    checkpoint::read_args(content, result, source);
  } else {
    result.model_class = "HealDA";
    result.config = content;
  }
}

Checkpoint read_safetensors_checkpoint(const fs::path& path) {
  Checkpoint result;
  result.path = path;
  result.container = "safetensors";
  const auto file = std::make_shared<SafetensorsFile>(path);
  for (const auto& [name, entry] : file->entries()) {
    result.tensors.emplace(name, StoredTensor{entry.dtype, entry.shape,
                                              [file, key = name] { return file->read(key); }});
  }
  result.metadata = file->metadata();
  if (result.metadata.contains(kConfigKey)) {
    read_own_metadata(result, Source("load_checkpoint", path.string()));
  } else {
    read_sibling(result);
  }
  return result;
}

}  // namespace

int64_t Checkpoint::parameter_count() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : tensors) {
    if (!is_buffer_key(name) && !is_retired_key(name))
      count += c10::multiply_integers(tensor.sizes);
  }
  return count;
}

Checkpoint read_checkpoint(const fs::path& path) {
  try {
    if (path.extension() == ".safetensors") return read_safetensors_checkpoint(path);
    HALCYON_CHECK_KIND(path.extension() == ".mdlus", input, "load_checkpoint",
                       "{}: expected a name that ends in .safetensors or .mdlus", path.string());
    Checkpoint result = checkpoint::read_mdlus(Blob::of_file(path), path.string());
    result.path = path;
    return result;
  } catch (const c10::Error& e) {
    throw_error(ErrorKind::input, "load_checkpoint",
                fmt::format("{}: {}", path.string(), e.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    throw_error(ErrorKind::input, "load_checkpoint",
                fmt::format("{}: not enough memory", path.string()));
  }
}

void checkpoint::write_own_metadata(std::string config,
                                    std::map<std::string, std::string>& metadata) {
  metadata[kVersionKey] = kVersion;
  metadata[kClassKey] = "HealDA";
  metadata[kConfigKey] = std::move(config);
}

}  // namespace halcyon
