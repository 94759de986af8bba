// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "halcyon/model/checkpoint/blob.h"

// Writers of the files that the checkpoint readers read, able to lie.
namespace halcyon::test {

struct ZipEntry {
  std::string name = {}, data = {};
  bool deflate = false;
  bool zip64 = false;                                // sizes and offset in zip64 extra fields
  std::optional<std::uint64_t> announced_size = {};  // instead of the inflated size
  std::optional<std::uint32_t> crc = {};             // instead of the right one
  std::optional<std::uint64_t> offset = {};          // of the local header, in the directory
  std::string local_name = {};                       // when other than name
  std::uint16_t flags = 0, method = 0xffff;          // method: instead of the right one
};
std::string zip_of(const std::vector<ZipEntry>& entries, bool zip64_end = false);

using Files = std::vector<std::pair<std::string, std::string>>;
enum class TarNames { ustar, pax, gnu };
// type: of every member. Names over 100 bytes go the way that `names` says.
std::string tar_of(const Files& files, TarNames names = TarNames::ustar, char type = '0');
// One 512-byte header with its checksum.
std::string tar_header(std::string_view name, std::uint64_t size, char type = '0');

std::string gzip_of(const std::string& data);

// The members of a zip archive, by Halcyon's own reader.
Files unzip(const std::string& archive);

// Bytes as the readers take them.
checkpoint::Blob blob_of(std::string_view bytes);

// "" when f() returns, else the message of the Error(input) that it throws.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
    return "";
  } catch (const Error& e) {
    return (e.kind() == ErrorKind::input ? "" : "another kind: ") + std::string(e.what());
  }
}

// Pickled values as torch.save writes them.
namespace pickled {
std::string text(std::string_view value);  // BINUNICODE
std::string integer(std::int64_t value);   // BININT or LONG1
std::string tuple(const std::vector<std::string>& values);
std::string global(std::string_view module, std::string_view name);
std::string tensor(std::string_view storage, std::int64_t numel,
                   const std::vector<std::int64_t>& sizes, const std::vector<std::int64_t>& strides,
                   std::int64_t offset = 0, std::string_view type = "FloatStorage");
// PROTO 2, an OrderedDict of these names and pickled values, STOP.
std::string state_dict(const Files& items);
}  // namespace pickled

// A torch.save archive: "archive/data.pkl", data/<key> storages, version, byteorder.
std::string torch_archive_of(const std::string& pickle, const Files& storages);

}  // namespace halcyon::test
