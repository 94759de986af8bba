// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

struct Inflater {
  Inflater() {
    // 16: gzip wrapping only
    HALCYON_ASSERT(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK);
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream stream{};
};

uInt clipped(std::size_t size) {
  return static_cast<uInt>(std::min<std::size_t>(size, std::numeric_limits<uInt>::max()));
}

}  // namespace

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::vector<std::byte> gunzip(std::span<const std::byte> bytes, const std::filesystem::path& name,
                              std::size_t limit) {
  HALCYON_CHECK_KIND(is_gzip(bytes), input, "gunzip", "{}: not a gzip file", name.string());
  Inflater inflater;
  z_stream& stream = inflater.stream;
  std::vector<std::byte> out;
  std::size_t made = 0, used = 0;
  while (true) {
    if (made == out.size()) {
      HALCYON_CHECK_KIND(made < limit, input, "gunzip", "{}: unpacks to more than {} bytes",
                         name.string(), limit);
      out.resize(std::min(limit, std::max<std::size_t>(out.size() * 2, std::size_t{1} << 16)));
    }
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(bytes.data() + used));
    stream.avail_in = clipped(bytes.size() - used);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + made);
    stream.avail_out = clipped(out.size() - made);
    const uInt offered = stream.avail_in, room = stream.avail_out;
    const int status = inflate(&stream, Z_NO_FLUSH);
    used += offered - stream.avail_in;
    made += room - stream.avail_out;
    if (status == Z_STREAM_END) {
      // zero padding after the last member is customary (tapes); another member may follow
      if (!is_gzip(bytes.subspan(used))) break;
      HALCYON_ASSERT(inflateReset(&stream) == Z_OK);
      continue;
    }
    HALCYON_CHECK_KIND(status != Z_BUF_ERROR || used < bytes.size() || made == out.size(), input,
                       "gunzip", "{}: truncated after {} bytes", name.string(), bytes.size());
    HALCYON_CHECK_KIND(status == Z_OK || status == Z_BUF_ERROR, input, "gunzip", "{}: corrupt: {}",
                       name.string(), stream.msg ? stream.msg : zError(status));
  }
  HALCYON_CHECK_KIND(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(used), bytes.end(),
                                 [](std::byte b) { return b == std::byte{0}; }),
                     input, "gunzip", "{}: corrupt: {} bytes after the end of the stream",
                     name.string(), bytes.size() - used);
  out.resize(made);
  return out;
}

}  // namespace halcyon
