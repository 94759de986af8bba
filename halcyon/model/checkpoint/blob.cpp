// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint/blob.h"

#include <ATen/Parallel.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "halcyon/base/read_tensor.h"

namespace halcyon::checkpoint {

namespace {

constexpr std::uint64_t kChunk = std::uint64_t{8} << 20, kBuffer = std::uint64_t{1} << 20;
constexpr std::uint64_t kMaxRatio = 100, kFreeBytes = std::uint64_t{16} << 20;

// Inflates into memory that is already there; tells how far it came.
class Inflater {
 public:
  Inflater(const Blob& compressed, const Source& source)
      : input_(compressed), buffer_(std::min(compressed.size(), kBuffer)), source_(source) {
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
      const auto more = std::min<std::uint64_t>(input_.size() - used_, buffer_.size());
      input_.read(used_, {buffer_.data(), more});
      stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_in = static_cast<uInt>(more);
      used_ += more;
    }
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    source_.check(status == Z_OK || status == Z_STREAM_END, "its compressed data are broken ({})",
                  stream_.msg != nullptr ? stream_.msg : "they end too early");
    ended_ = status == Z_STREAM_END;
  }

  z_stream stream_{};
  const Blob& input_;
  std::vector<std::byte> buffer_;
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
  Blob blob;
  blob.file_ = std::make_shared<InputFile>(path);
  blob.size_ = blob.file_->size();
  return blob;
}

Blob Blob::allocate(std::uint64_t size) {
  // 64-byte aligned, as tensors are: what is aligned in the file stays so
  const auto rounded = (std::max<std::uint64_t>(size, 1) + 63) / 64 * 64;
  Blob blob;
  void* memory = rounded < size ? nullptr : std::aligned_alloc(64, rounded);
  HALCYON_CHECK_KIND(memory != nullptr, input, "load_checkpoint", "no memory for {} bytes", size);
  blob.memory_ = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
  blob.address_ = static_cast<std::byte*>(memory);
  blob.size_ = size;
  return blob;
}

Blob Blob::of_bytes(std::vector<std::byte> bytes) {
  const auto kept = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  Blob blob;
  blob.memory_ = kept;
  blob.address_ = kept->data();
  blob.size_ = kept->size();
  return blob;
}

Blob Blob::slice(std::uint64_t offset, std::uint64_t size) const {
  HALCYON_ASSERT(offset <= size_ && size <= size_ - offset);
  Blob part = *this;
  part.size_ = size;
  if (file_) {
    part.offset_ += offset;
  } else {
    part.address_ += offset;
  }
  return part;
}

void Blob::read(std::uint64_t offset, std::span<std::byte> into) const {
  HALCYON_ASSERT(offset <= size_ && into.size() <= size_ - offset);
  if (into.empty()) return;
  if (file_) {
    file_->read(offset_ + offset, into);
  } else {
    std::memcpy(into.data(), address_ + offset, into.size());
  }
}

void Blob::read_in_pieces(std::uint64_t offset, std::span<std::byte> into) const {
  HALCYON_ASSERT(offset <= size_ && into.size() <= size_ - offset);
  if (file_) {
    halcyon::read_in_pieces(*file_, offset_ + offset, into);
  } else {
    read(offset, into);
  }
}

Blob Blob::loaded() const {
  if (!file_) return *this;
  Blob copy = allocate(size_);
  read_in_pieces(0, copy.bytes());
  return copy;
}

std::span<std::byte> Blob::bytes() const {
  HALCYON_ASSERT(!file_);
  return {address_, size_};
}

std::string_view Blob::text() const {
  const auto all = bytes();
  return {reinterpret_cast<const char*>(all.data()), all.size()};
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

Blob inflate(const Blob& compressed, std::uint64_t size, const Source& source) {
  const Blob out = Blob::allocate(size);
  Inflater stream(compressed, source);
  const auto written = stream.fill(out.bytes());
  source.check(written == size && stream.finished(),
               "its compressed data do not give the {} bytes that it announces", size);
  return out;
}

std::uint32_t crc32_of(const Blob& blob) {
  const auto chunks = static_cast<std::int64_t>((blob.size() + kChunk - 1) / kChunk);
  const auto extent = [&](std::int64_t i) {
    return std::min<std::uint64_t>(kChunk, blob.size() - static_cast<std::uint64_t>(i) * kChunk);
  };
  std::vector<std::uint32_t> sums(static_cast<std::size_t>(chunks));
  at::parallel_for(0, chunks, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<std::byte> buffer(std::min(blob.size(), kBuffer));
    for (auto i = first; i < last; ++i) {
      const auto begin = static_cast<std::uint64_t>(i) * kChunk, end = begin + extent(i);
      uLong sum = 0;
      for (auto at = begin; at < end; at += kBuffer) {
        const std::span piece(buffer.data(), std::min(kBuffer, end - at));
        blob.read(at, piece);
        sum = ::crc32_z(sum, reinterpret_cast<const Bytef*>(piece.data()), piece.size());
      }
      sums[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>(sum);
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
