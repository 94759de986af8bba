// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"

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

struct Entry {
  std::string name;
  at::ScalarType type;
  std::vector<std::int64_t> shape;
  std::uint64_t begin, end;
};

class Reader {
 public:
  explicit Reader(const fs::path& path) : file_(std::make_shared<MappedFile>(path)) {}

  TensorFile read() {
    const auto bytes = file_->bytes();
    std::uint64_t header_size = 0;
    check(bytes.size() >= 8, "expected an 8-byte header length, got {} bytes", bytes.size());
    std::memcpy(&header_size, bytes.data(), 8);
    check(header_size <= kMaxHeader && header_size <= bytes.size() - 8,
          "announces a header of {} bytes in a file of {}", header_size, bytes.size());
    const auto* text = reinterpret_cast<const char*>(bytes.data()) + 8;
    std::set<std::string> names;
    const auto check_names = [&](int depth, json::parse_event_t event, const json& name) {
      if (depth == 1 && event == json::parse_event_t::key) {
        check(names.insert(name.get<std::string>()).second, "holds two tensors named {}",
              name.get<std::string>());
      }
      return true;
    };
    const json header =
        json::parse(text, text + header_size, check_names, /*allow_exceptions=*/false);
    check(header.is_object(), "its header is not a JSON object");

    TensorFile content;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__") {
        content.metadata = metadata(value);
      } else {
        entries.push_back(entry(name, value));
      }
    }
    auto* data = bytes.data() + 8 + header_size;
    check_layout(entries, bytes.size() - 8 - header_size);
    for (const auto& e : entries) content.tensors.emplace(e.name, tensor(e, data + e.begin));
    return content;
  }

 private:
  template <class... Args>
  void check(bool holds, fmt::format_string<Args...> format, Args&&... args) const {
    if (!holds) {
      throw_error(ErrorKind::input, "safetensors",
                  file_->path().string() + ": " + fmt::format(format, std::forward<Args>(args)...));
    }
  }

  std::map<std::string, std::string> metadata(const json& value) const {
    check(value.is_object(), "__metadata__ is not an object");
    std::map<std::string, std::string> table;
    for (const auto& [key, text] : value.items()) {
      check(text.is_string(), "__metadata__.{} is not a string", key);
      table.emplace(key, text.get<std::string>());
    }
    return table;
  }

  Entry entry(const std::string& name, const json& value) const {
    check(value.is_object() && value.contains("dtype") && value.contains("shape") &&
              value.contains("data_offsets") && value["dtype"].is_string() &&
              value["shape"].is_array() && value["data_offsets"].is_array() &&
              value["data_offsets"].size() == 2,
          "tensor {} lacks dtype, shape or data_offsets", name);
    Entry e{name, at::kFloat, {}, 0, 0};
    const auto dtype = value["dtype"].get<std::string>();
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                    [&](const auto& t) { return dtype == t.first; });
    check(type != std::end(kTypes), "tensor {} has the unknown dtype {}", name, dtype);
    e.type = type->second;
    check(value["shape"].size() <= kMaxRank, "tensor {} has {} dimensions", name,
          value["shape"].size());
    std::int64_t size = static_cast<std::int64_t>(c10::elementSize(e.type)), extents = 1;
    for (const auto& extent : value["shape"]) {
      check(extent.is_number_unsigned(), "tensor {} has a shape that is not of whole numbers",
            name);
      e.shape.push_back(extent.get<std::int64_t>());
      // empty tensors, too, need extents whose product fits
      check(e.shape.back() >= 0 &&
                !__builtin_mul_overflow(extents, std::max<std::int64_t>(e.shape.back(), 1),
                                        &extents) &&
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
    return e;
  }

  void check_layout(std::vector<Entry>& entries, std::uint64_t data_size) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    std::uint64_t position = 0;
    for (const auto& e : entries) {
      check(e.begin == position, "tensor {} begins at byte {}, expected {}", e.name, e.begin,
            position);
      position = e.end;
    }
    check(position == data_size, "its tensors take {} bytes, but it holds {}", position, data_size);
  }

  at::Tensor tensor(const Entry& e, std::byte* address) const {
    const auto options = at::TensorOptions().dtype(e.type);
    if (e.begin == e.end) return at::empty(e.shape, options);
    check(e.type != at::kBool || std::all_of(address, address + (e.end - e.begin),
                                             [](std::byte b) { return b <= std::byte{1}; }),
          "tensor {} has truth values other than 0 and 1", e.name);
    const bool aligned = reinterpret_cast<std::uintptr_t>(address) % c10::elementSize(e.type) == 0;
    if (!aligned) {
      auto copy = at::empty(e.shape, options);
      std::memcpy(copy.mutable_data_ptr(), address, e.end - e.begin);
      return copy;
    }
    return at::from_blob(
        address, e.shape, [keep = file_](void*) {}, options);
  }

  std::shared_ptr<MappedFile> file_;
};

}  // namespace

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
  return Reader(path).read();
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
    const std::uint64_t size = static_cast<std::uint64_t>(tensor.numel()) * tensor.element_size();
    header[name] = {{"dtype", type->first},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {position, position + size}}};
    position += size;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that mapped tensors are aligned
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
