// SPDX-License-Identifier: Apache-2.0
#include "tests/model/checkpoint_files.h"

#include <fmt/format.h>

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "halcyon/model/checkpoint/zip.h"

namespace halcyon::test {

namespace {

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string u16(std::uint64_t v) {
  return bytes_of(static_cast<std::uint16_t>(v));
}
std::string u32(std::uint64_t v) {
  return bytes_of(static_cast<std::uint32_t>(v));
}
std::string u64(std::uint64_t v) {
  return bytes_of(v);
}

std::string deflated(const std::string& data, int window_bits) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string octal(std::uint64_t value, int digits) {
  return fmt::format("{:0{}o}", value, digits);
}

std::string padded(const std::string& data) {
  return data + std::string((512 - data.size() % 512) % 512, '\0');
}

}  // namespace

std::string zip_of(const std::vector<ZipEntry>& entries, bool zip64_end) {
  std::string out, directory;
  for (const auto& e : entries) {
    const auto stored = e.deflate ? deflated(e.data, -MAX_WBITS) : e.data;
    const std::uint64_t size = e.announced_size.value_or(e.data.size());
    const std::uint64_t packed = e.deflate ? stored.size() : size;
    const auto crc = e.crc.value_or(static_cast<std::uint32_t>(
        ::crc32_z(0, reinterpret_cast<const Bytef*>(e.data.data()), e.data.size())));
    const std::uint64_t method = e.method != 0xffff ? e.method : (e.deflate ? 8 : 0);
    const std::uint64_t offset = e.offset.value_or(out.size());
    const auto& local = e.local_name.empty() ? e.name : e.local_name;
    const std::uint64_t full = 0xffffffff;
    const auto local_extra = e.zip64 ? u16(1) + u16(16) + u64(size) + u64(packed) : std::string();
    const auto extra =
        e.zip64 ? u16(1) + u16(24) + u64(size) + u64(packed) + u64(offset) : std::string();
    out += u32(0x04034b50) + u16(45) + u16(e.flags) + u16(method) + u32(0) + u32(crc) +
           u32(e.zip64 ? full : packed) + u32(e.zip64 ? full : size) + u16(local.size()) +
           u16(local_extra.size()) + local + local_extra + stored;
    directory += u32(0x02014b50) + u16(45) + u16(45) + u16(e.flags) + u16(method) + u32(0) +
                 u32(crc) + u32(e.zip64 ? full : packed) + u32(e.zip64 ? full : size) +
                 u16(e.name.size()) + u16(extra.size()) + u16(0) + u16(0) + u16(0) + u32(0) +
                 u32(e.zip64 ? full : offset) + e.name + extra;
  }
  const auto begin = out.size();
  out += directory;
  if (zip64_end) {
    const auto where = out.size();
    out += u32(0x06064b50) + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(entries.size()) +
           u64(entries.size()) + u64(directory.size()) + u64(begin);
    out += u32(0x07064b50) + u32(0) + u64(where) + u32(1);
  }
  const auto small = [&](std::uint64_t v, std::uint64_t most) { return zip64_end ? most : v; };
  out += u32(0x06054b50) + u16(0) + u16(0) + u16(small(entries.size(), 0xffff)) +
         u16(small(entries.size(), 0xffff)) + u32(small(directory.size(), 0xffffffff)) +
         u32(small(begin, 0xffffffff)) + u16(0);
  return out;
}

std::string tar_header(std::string_view name, std::uint64_t size, char type) {
  std::string block(512, '\0');
  const auto put = [&](std::size_t at, std::string_view text) {
    block.replace(at, text.size(), text);
  };
  put(0, name.substr(0, 100));
  put(100, "0000644");
  put(124, octal(size, 11));
  put(136, octal(0, 11));
  put(148, std::string(8, ' '));
  block[156] = type;
  put(257, std::string_view("ustar\00000", 8));
  std::uint64_t sum = 0;
  for (const unsigned char c : block) sum += c;
  put(148, octal(sum, 6) + std::string("\0 ", 2));
  return block;
}

std::string tar_of(const Files& files, TarNames names, char type) {
  std::string out;
  for (const auto& [name, data] : files) {
    if (names == TarNames::gnu) {
      out += tar_header("././@LongLink", name.size() + 1, 'L') + padded(name + '\0');
    } else if (names == TarNames::pax) {
      std::string record = fmt::format(" path={}\n", name);
      const auto length = record.size() + (record.size() + 2 < 100 ? 2 : 3);
      record = fmt::format("{}{}", length, record);
      out += tar_header("PaxHeaders/x", record.size(), 'x') + padded(record);
    }
    out += tar_header(names == TarNames::ustar ? name : "short", data.size(), type) + padded(data);
  }
  return out + std::string(1024, '\0');
}

std::string gzip_of(const std::string& data) {
  return deflated(data, MAX_WBITS + 16);
}

checkpoint::Blob blob_of(std::string_view bytes) {
  auto blob = checkpoint::Blob::allocate(bytes.size());
  std::memcpy(blob.bytes().data(), bytes.data(), bytes.size());
  return blob;
}

Files unzip(const std::string& archive) {
  const checkpoint::ZipArchive zip(blob_of(archive),
                                   std::make_shared<checkpoint::InflateBudget>(archive.size()),
                                   {"unzip", "archive"});
  Files files;
  for (const auto& [name, member] : zip.members())
    files.emplace_back(name, std::string(zip.read(name).text()));
  return files;
}

namespace pickled {

std::string text(std::string_view value) {
  return "X" + u32(value.size()) + std::string(value);
}

std::string integer(std::int64_t value) {
  if (value >= INT32_MIN && value <= INT32_MAX) return "J" + bytes_of(static_cast<int32_t>(value));
  return "\x8a\x08" + bytes_of(value);
}

std::string tuple(const std::vector<std::string>& values) {
  std::string out = "(";
  for (const auto& v : values) out += v;
  return out + "t";
}

std::string global(std::string_view module, std::string_view name) {
  return fmt::format("c{}\n{}\n", module, name);
}

std::string tensor(std::string_view storage, std::int64_t numel,
                   const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& strides,
                   std::int64_t offset, std::string_view type) {
  const auto numbers = [](const std::vector<std::int64_t>& values) {
    std::vector<std::string> parts(values.size());
    std::transform(values.begin(), values.end(), parts.begin(), integer);
    return tuple(parts);
  };
  const auto id =
      tuple({text("storage"), global("torch", type), text(storage), text("cpu"), integer(numel)});
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({id + "Q", integer(offset), numbers(sizes), numbers(strides), "\x89",
                global("collections", "OrderedDict") + ")R"}) +
         "R";
}

std::string state_dict(const Files& items) {
  std::string out = "\x80\x02" + global("collections", "OrderedDict") + ")R(";
  for (const auto& [name, value] : items) out += text(name) + value;
  return out + "u.";
}

}  // namespace pickled

std::string torch_archive_of(const std::string& pickle, const Files& storages) {
  std::vector<ZipEntry> entries = {
      {"archive/data.pkl", pickle}, {"archive/byteorder", "little"}, {"archive/version", "3\n"}};
  for (const auto& [key, data] : storages) entries.push_back({"archive/data/" + key, data});
  return zip_of(entries);
}

}  // namespace halcyon::test
