// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/blob.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "halcyon/base/files.h"

namespace halcyon::checkpoint {

namespace {

constexpr std::uint64_t kChunk = std::uint64_t{8} << 20;
constexpr std::uint64_t kMaxRatio = 100, kFreeBytes = std::uint64_t{16} << 20;

// Inflates into memory that is already there; tells how far it came.
class Inflater {
 public:
  Inflater(const Blob& compressed, const Source& source)
      : input_(compressed.bytes()), source_(source) {
    source_.check(inflateInit2(&stream_, -MAX_WBITS) == Z_OK, "cannot start zlib");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Fills output as far as the stream goes; returns the bytes written.
  std::uint64_t fill(std::span<std::byte> output) {
    std::uint64_t written = 0;
    while (!ended_ && written < output.size()) {
      const auto room = std::min<std::uint64_t>(output.size() - written, kChunk);
      stream_.next_out = reinterpret_cast<Bytef*>(output.data() + written);
      stream_.avail_out = static_cast<uInt>(room);
      step();
      written += room - stream_.avail_out;
    }
    return written;
  }
  // True when the stream ends here, with all its input used.
  bool finished() {
    std::byte extra{};
    stream_.next_out = reinterpret_cast<Bytef*>(&extra);
    stream_.avail_out = 1;
    while (!ended_ && stream_.avail_out == 1) step();
    return ended_ && stream_.avail_out == 1 && used_ - stream_.avail_in == input_.size();
  }

 private:
  void step() {
    if (stream_.avail_in == 0) {
      const auto more = std::min<std::uint64_t>(input_.size() - used_, kChunk);
      stream_.next_in = reinterpret_cast<Bytef*>(input_.data() + used_);
      stream_.avail_in = static_cast<uInt>(more);
      used_ += more;
    }
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    source_.check(status == Z_OK || status == Z_STREAM_END, "its compressed data are broken ({})",
                  stream_.msg != nullptr ? stream_.msg : "they end too early");
    ended_ = status == Z_STREAM_END;
  }

  z_stream stream_{};
  std::span<std::byte> input_;
  std::uint64_t used_ = 0;
  bool ended_ = false;
  const Source& source_;
};

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::string out(text.substr(0, kLongest));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return text.size() > kLongest ? out + "..." : out;
}

Blob Blob::of_file(const std::filesystem::path& path) {
  const auto file = std::make_shared<MappedFile>(path);
  Blob blob;
  blob.owner_ = file;
  blob.bytes_ = file->bytes();
  blob.mapped_ = true;
  return blob;
}

Blob Blob::allocate(std::uint64_t size) {
  // 64-byte aligned, as tensors are: what is aligned in the file stays so
  const auto rounded = (std::max<std::uint64_t>(size, 1) + 63) / 64 * 64;
  Blob blob;
  void* memory = rounded < size ? nullptr : std::aligned_alloc(64, rounded);
  HALCYON_CHECK_KIND(memory != nullptr, input, "load_checkpoint", "no memory for {} bytes", size);
  blob.owner_ = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
  blob.bytes_ = {static_cast<std::byte*>(memory), size};
  return blob;
}

Blob Blob::of_bytes(std::vector<std::byte> bytes) {
  const auto kept = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  Blob blob;
  blob.owner_ = kept;
  blob.bytes_ = *kept;
  return blob;
}

Blob Blob::slice(std::uint64_t offset, std::uint64_t size) const {
  HALCYON_ASSERT(offset <= bytes_.size() && size <= bytes_.size() - offset);
  Blob part = *this;
  part.bytes_ = bytes_.subspan(offset, size);
  return part;
}

void Blob::release_pages(std::uint64_t offset, std::uint64_t size) const {
  if (!mapped_ || size == 0) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes_.data() + offset);
  const auto first = (begin + page - 1) / page * page, last = (begin + size) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

InflateBudget::InflateBudget(std::uint64_t file_size)
    : left_(file_size > std::numeric_limits<std::uint64_t>::max() / (2 * kMaxRatio)
                ? std::numeric_limits<std::uint64_t>::max()
                : file_size * kMaxRatio + kFreeBytes) {}

void InflateBudget::spend(std::uint64_t size, const Source& source) {
  source.check(size <= left_, "announces {} inflated bytes, more than {} times what the file holds",
               size, kMaxRatio);
  left_ -= size;
}

Blob inflate(const Blob& compressed, std::uint64_t size, InflateBudget& budget,
             const Source& source) {
  budget.spend(size, source);
  const Blob out = Blob::allocate(size);
  Inflater stream(compressed, source);
  const auto written = stream.fill(out.bytes());
  source.check(written == size && stream.finished(),
               "its compressed data do not give the {} bytes that it announces", size);
  return out;
}

std::uint32_t crc32_of(const Blob& blob) {
  const auto bytes = blob.bytes();
  const auto chunks = static_cast<std::int64_t>((bytes.size() + kChunk - 1) / kChunk);
  const auto extent = [&](std::int64_t i) {
    return std::min<std::uint64_t>(kChunk, bytes.size() - static_cast<std::uint64_t>(i) * kChunk);
  };
  std::vector<std::uint32_t> sums(static_cast<std::size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const auto offset = static_cast<std::uint64_t>(i) * kChunk;
      sums[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>(
          ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data() + offset), extent(i)));
      blob.release_pages(offset, extent(i));
    }
  });
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < chunks; ++i)
    sum = crc32_joined(sum, sums[static_cast<std::size_t>(i)], extent(i));
  return sum;
}

std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t second_size) {
  return static_cast<std::uint32_t>(
      ::crc32_combine(first, second, static_cast<z_off_t>(second_size)));
}

}  // namespace halcyon::checkpoint
