// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/mdlus.h"

#include <algorithm>

#include "halcyon/base/gzip.h"
#include "halcyon/base/json_text.h"
#include "halcyon/model/checkpoint/tar.h"
#include "halcyon/model/checkpoint/torch_archive.h"
#include "halcyon/model/checkpoint/zip.h"

namespace halcyon::checkpoint {

namespace {

constexpr std::uint64_t kMaxJson = std::uint64_t{4} << 20;
constexpr const char* kModel = "model.pt";
constexpr const char* kArgs = "args.json";
constexpr const char* kMetadata = "metadata.json";
constexpr const char* kVersion = "0.1.0";  // of the container, as metadata.json tells it

void read_metadata(const nlohmann::json& metadata, Checkpoint& checkpoint, const Source& source) {
  for (const auto& [key, value] : metadata.items()) {
    checkpoint.metadata[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  const auto version = checkpoint.metadata.find("mdlus_file_version");
  source.check(version != checkpoint.metadata.end() && version->second == kVersion,
               "expected mdlus_file_version {}, got {}", kVersion,
               version == checkpoint.metadata.end() ? "none" : printable(version->second));
}

Checkpoint read_members(const Blob& args, const Blob& metadata, const Source& source) {
  Checkpoint checkpoint;
  read_args(read_json(args, source.inside(kArgs)), checkpoint, source.inside(kArgs));
  read_metadata(read_json(metadata, source.inside(kMetadata)), checkpoint,
                source.inside(kMetadata));
  return checkpoint;
}

Checkpoint read_tar_flavour(const Blob& bytes, const std::shared_ptr<InflateBudget>& budget,
                            const Source& source) {
  const auto members = read_tar(bytes, source);
  const auto member = [&](const char* name) {
    const auto found = members.find(name);
    source.check(found != members.end(), "holds no member named {}", name);
    return found->second;
  };
  const Blob model = member(kModel);
  Checkpoint checkpoint = read_members(member(kArgs), member(kMetadata), source);
  checkpoint.container = "mdlus (tar)";
  checkpoint.tensors = read_torch_archive(model, budget, source.inside(kModel));
  return checkpoint;
}

Checkpoint read_zip_flavour(const Blob& bytes, const std::shared_ptr<InflateBudget>& budget,
                            const Source& source) {
  const ZipArchive zip(bytes, budget, source);
  for (const char* name : {kModel, kArgs, kMetadata}) zip.member(name);
  Checkpoint checkpoint =
      read_members(zip.read(kArgs, kMaxJson), zip.read(kMetadata, kMaxJson), source);
  checkpoint.container = "mdlus (zip)";
  const bool deflated = zip.member(kModel).deflated();
  checkpoint.tensors = read_torch_archive(deflated ? zip.read(kModel) : zip.stored(kModel), budget,
                                          source.inside(kModel), zip.member(kModel).crc);
  return checkpoint;
}

}  // namespace

nlohmann::json read_json(const Blob& bytes, const Source& source) {
  source.check(bytes.size() <= kMaxJson, "has {} bytes, expected at most {}", bytes.size(),
               kMaxJson);
  const Blob content = bytes.loaded();
  auto [value, trouble] = parse_json(content.text());
  source.check(trouble.empty(), "expected a JSON object: {}", trouble);
  source.check(value.is_object(), "expected a JSON object");
  return std::move(value);
}

void read_args(const nlohmann::json& args, Checkpoint& checkpoint, const Source& source) {
  const auto text = [&](const char* key) {
    const auto found = args.find(key);
    source.check(found != args.end() && found->is_string(), "expected a text named {}", key);
    return found->get<std::string>();
  };
  const auto name = text("__name__"), module = text("__module__");
  const bool ours = name == "HealDA" && module.starts_with("halcyon");
  const bool peer = name == "VideoHealDA" && module.starts_with("physicsnemo.");
  source.check(ours || peer,
               "holds a model of the class {}.{}; expected VideoHealDA of physicsnemo",
               printable(module), printable(name));
  const auto config = args.find("__args__");
  source.check(config != args.end() && config->is_object(), "expected an object named __args__");
  checkpoint.model_class = "HealDA";
  checkpoint.config = *config;
}

Checkpoint read_mdlus(const Blob& bytes, const std::string& place) {
  const Source source("load_checkpoint", place);
  const auto budget = std::make_shared<InflateBudget>(bytes.size());
  const Blob start = bytes.slice(0, std::min<std::uint64_t>(bytes.size(), 2)).loaded();
  if (is_gzip(start.bytes())) {
    const Blob inflated = Blob::of_bytes(gunzip(bytes.loaded().bytes(), place, budget->left()));
    budget->spend(inflated.size(), source);
    source.check(looks_like_tar(inflated), "holds no tar archive inside its gzip");
    return read_tar_flavour(inflated, budget, source);
  }
  if (looks_like_tar(bytes)) return read_tar_flavour(bytes, budget, source);
  source.check(ZipArchive::looks_like(bytes), "is neither a zip nor a tar archive");
  return read_zip_flavour(bytes, budget, source);
}

}  // namespace halcyon::checkpoint
