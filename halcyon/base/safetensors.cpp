// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/safetensors.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/json_text.h"
#include "halcyon/base/read_tensor.h"

namespace halcyon {
namespace fs = std::filesystem;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data are little endian");

namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit

constexpr std::size_t kMaxRank = 64;  // LibTorch's

constexpr std::pair<const char*, at::ScalarType> kTypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
    {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
    {"U8", at::kByte},    {"BOOL", at::kBool},
};

}  // namespace

template <class... Args>
void SafetensorsFile::check(bool holds, fmt::format_string<Args...> format, Args&&... args) const {
  if (!holds) {
    throw_error(ErrorKind::input, "safetensors",
                file_.path().string() + ": " + fmt::format(format, std::forward<Args>(args)...));
  }
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  read_header();
}

void SafetensorsFile::read_header() {
  std::uint64_t size = 0;
  check(file_.size() >= 8, "expected an 8-byte header length, got {} bytes", file_.size());
  file_.read(0, std::as_writable_bytes(std::span(&size, 1)));
  check(size <= kMaxHeader && size <= file_.size() - 8,
        "announces a header of {} bytes in a file of {}", size, file_.size());
  std::string text(size, '\0');
  file_.read(8, std::as_writable_bytes(std::span(text)));
  check(!text.starts_with("\xef\xbb\xbf"), "its header begins with a byte order mark");
  const auto [header, trouble] = parse_json(text);
  check(trouble.empty(), "its header is not a JSON object: {}", trouble);
  check(header.is_object(), "its header is not a JSON object");

  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      add_entry(name, value);
    } else if (!value.is_null()) {
      check(value.is_object(), "__metadata__ is not an object");
      for (const auto& [key, said] : value.items()) {
        check(said.is_string(), "__metadata__.{} is not a string", key);
        metadata_.emplace(key, said.get<std::string>());
      }
    }
  }
  check_layout(8 + size);
}

void SafetensorsFile::add_entry(const std::string& name, const json& value) {
  check(value.is_object() && value.contains("dtype") && value.contains("shape") &&
            value.contains("data_offsets") && value["dtype"].is_string() &&
            value["shape"].is_array() && value["data_offsets"].is_array() &&
            value["data_offsets"].size() == 2,
        "tensor {} lacks dtype, shape or data_offsets", name);
  Entry e;
  const auto dtype = value["dtype"].get<std::string>();
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const auto& t) { return dtype == t.first; });
  check(type != std::end(kTypes), "tensor {} has the unknown dtype {}", name, dtype);
  e.dtype = type->second;
  check(value["shape"].size() <= kMaxRank, "tensor {} has {} dimensions", name,
        value["shape"].size());
  std::int64_t size = static_cast<std::int64_t>(c10::elementSize(e.dtype)), extents = 1;
  for (const auto& extent : value["shape"]) {
    check(extent.is_number_unsigned(), "tensor {} has a shape that is not of whole numbers", name);
    e.shape.push_back(extent.get<std::int64_t>());
    // empty tensors, too, need extents whose product fits
    check(
        e.shape.back() >= 0 &&
            !__builtin_mul_overflow(extents, std::max<std::int64_t>(e.shape.back(), 1), &extents) &&
            extents <= std::numeric_limits<std::int64_t>::max() / 8,
        "tensor {} has an impossible shape", name);
    size *= e.shape.back();
  }
  for (const auto& offset : value["data_offsets"]) {
    check(offset.is_number_unsigned(), "tensor {} has offsets that are not whole numbers", name);
  }
  e.begin = value["data_offsets"][0].get<std::uint64_t>();
  e.end = value["data_offsets"][1].get<std::uint64_t>();
  check(e.begin <= e.end && e.end - e.begin == static_cast<std::uint64_t>(size),
        "tensor {} has {} bytes by its shape, but offsets {} to {}", name, size, e.begin, e.end);
  entries_.emplace(name, std::move(e));
}

void SafetensorsFile::check_layout(std::uint64_t data_begin) {
  std::vector<std::pair<const std::string, Entry>*> in_order;
  for (auto& entry : entries_) in_order.push_back(&entry);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::tie(a->second.begin, a->second.end) < std::tie(b->second.begin, b->second.end);
  });
  std::uint64_t position = 0;
  for (const auto* entry : in_order) {
    check(entry->second.begin == position, "tensor {} begins at byte {}, expected {}", entry->first,
          entry->second.begin, position);
    position = entry->second.end;
  }
  const auto held = file_.size() - data_begin;
  check(position == held, "its tensors take {} bytes, but it holds {}", position, held);
  for (auto& [name, entry] : entries_) {
    entry.begin += data_begin;
    entry.end += data_begin;
  }
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  const auto& entry = entries_.at(name);
  if (entry.dtype != at::kBool) return read_tensor(file_, entry.begin, entry.shape, entry.dtype);
  const auto bytes = read_tensor(file_, entry.begin, entry.shape, at::kByte);
  check(bytes.le(1).all().item<bool>(), "tensor {} has truth values other than 0 and 1", name);
  return bytes.to(at::kBool);
}

const at::Tensor& TensorFile::at(const std::string& name) const {
  const auto found = tensors.find(name);
  if (found == tensors.end()) {
    std::string names;
    for (const auto& [key, value] : tensors) names += (names.empty() ? "" : ", ") + key;
    throw_error(ErrorKind::input, "safetensors",
                fmt::format("expected a tensor named {}, got only: {}", name, names));
  }
  return found->second;
}

TensorFile read_safetensors(const fs::path& path) {
  const SafetensorsFile file(path);
  TensorFile content{{}, file.metadata()};
  for (const auto& [name, entry] : file.entries()) content.tensors.emplace(name, file.read(name));
  return content;
}

void write_safetensors(const fs::path& path, const TensorFile& content) {
  json header = json::object();
  if (!content.metadata.empty()) header["__metadata__"] = content.metadata;
  std::uint64_t position = 0;
  for (const auto& [name, tensor] : content.tensors) {
    const auto* type =
        std::find_if(std::begin(kTypes), std::end(kTypes),
                     [wanted = tensor.scalar_type()](const auto& t) { return wanted == t.second; });
    HALCYON_CHECK(type != std::end(kTypes), "write_safetensors",
                  "tensor {}: expected a plain dtype, got {}", name,
                  c10::toString(tensor.scalar_type()));
    HALCYON_CHECK(!tensor.is_meta(), "write_safetensors",
                  "tensor {}: expected values, got one on the meta device", name);
    const std::uint64_t size = static_cast<std::uint64_t>(tensor.numel()) * tensor.element_size();
    header[name] = {{"dtype", type->first},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {position, position + size}}};
    position += size;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // for readers that map the file: aligned tensors
  write_atomically(path, [&](const fs::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    const std::uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), 8);
    out.write(text.data(), static_cast<std::streamsize>(length));
    for (const auto& [name, tensor] : content.tensors) {
      const auto plain = tensor.detach().cpu().contiguous();
      out.write(static_cast<const char*>(plain.const_data_ptr()),
                static_cast<std::streamsize>(plain.nbytes()));
    }
    out.close();
    HALCYON_CHECK_KIND(!out.fail(), output, "write_safetensors", "{}: {}", path.string(),
                       std::strerror(errno));
  });
}

}  // namespace halcyon
