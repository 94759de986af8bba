// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf_detail.h"

// The header of the classic formats, after the file format specifications in the NetCDF User Guide.
namespace halcyon::netcdf_detail {
namespace {

constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
constexpr std::array<std::uint64_t, 12> kTypeSize = {0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8};

class Header {
 public:
  Header(const Bytes& file, const std::filesystem::path& name) : file_(file), name_(name) {}

  void check() {
    at_ = 3;
    const auto version = big_endian(1, "version");
    wide_count_ = version == 5;
    wide_offset_ = version != 1;
    const auto records = count("number of records");
    read_dimensions();
    skip_attributes();
    read_variables(records);
  }

 private:
  struct Variable {
    std::uint64_t begin, bytes;  // bytes of one record where the first dimension is the record's
    bool record;
  };

  template <typename... Args>
  void require(bool condition, fmt::format_string<Args...> what, Args&&... args) const {
    HALCYON_CHECK_KIND(condition, input, "NetCDF", "{}: {}", name_.string(),
                       fmt::format(what, std::forward<Args>(args)...));
  }

  std::uint64_t big_endian(int width, const char* what) {
    const auto bytes = static_cast<std::uint64_t>(width);
    require(file_.size - at_ >= bytes, "truncated at byte {} ({})", at_, what);
    if (at_ < piece_begin_ || at_ + bytes > piece_begin_ + piece_.size()) read_piece();
    std::uint64_t value = 0;
    for (std::uint64_t i = 0; i < bytes; ++i)
      value = value << 8 | static_cast<std::uint64_t>(piece_[at_ - piece_begin_ + i]);
    at_ += bytes;
    return value;
  }

  void read_piece() {
    constexpr std::uint64_t kPiece = std::uint64_t{64} << 10;
    piece_begin_ = at_;
    piece_.resize(std::min(kPiece, file_.size - at_));
    file_.read(at_, piece_);
  }

  std::uint64_t count(const char* what) {
    const auto value = big_endian(wide_count_ ? 8 : 4, what);
    const auto most = wide_count_ ? kMost : (std::uint64_t{1} << 31) - 1;
    require(value <= most, "impossible {} {}", what, value);
    return value;
  }

  // A count of things that take at least `least` bytes each in what follows.
  std::uint64_t bounded(const char* what, std::uint64_t least) {
    const auto value = count(what);
    require(value <= (file_.size - at_) / least, "announces {} {}, more than the file can hold",
            value, what);
    return value;
  }

  void skip(std::uint64_t bytes, const char* what) {
    const auto padded = (bytes + 3) / 4 * 4;
    require(padded <= file_.size - at_, "truncated at byte {} ({})", at_, what);
    at_ += padded;
  }

  // The number of entries of a list; 0 where the list is absent.
  std::uint64_t list(unsigned tag, const char* what) {
    const auto found = big_endian(4, what);
    const auto entries = bounded(what, 8);
    require(found == tag || (found == 0 && entries == 0), "corrupt list of {}", what);
    return entries;
  }

  void skip_name() { skip(bounded("characters of a name", 1), "name"); }

  void read_dimensions() {
    const auto entries = list(10, "dimensions");
    for (std::uint64_t i = 0; i < entries; ++i) {
      skip_name();
      dimensions_.push_back(count("dimension length"));
    }
  }

  std::uint64_t type_size() {
    const auto type = big_endian(4, "type");
    require(type >= 1 && type <= (wide_count_ ? 11u : 6u), "unknown type {}", type);
    return kTypeSize[type];
  }

  void skip_attributes() {
    const auto entries = list(12, "attributes");
    for (std::uint64_t i = 0; i < entries; ++i) {
      skip_name();
      const auto size = type_size();
      skip(bounded("attribute values", size) * size, "attribute");
    }
  }

  void read_variables(std::uint64_t records) {
    const auto entries = list(11, "variables");
    std::vector<Variable> variables;
    // their number is the file's word: nothing is reserved by it
    for (std::uint64_t i = 0; i < entries; ++i)
      variables.push_back(read_variable());  // NOLINT(performance-inefficient-vector-operation)
    std::uint64_t record_bytes = 0, record_variables = 0;
    for (const auto& v : variables) {
      if (!v.record) continue;
      ++record_variables;
      record_bytes += (v.bytes + 3) / 4 * 4;
      require(record_bytes < kMost, "impossible record size");
    }
    for (const auto& v : variables) {
      // a lone record variable is not padded
      const auto stride = record_variables == 1 ? v.bytes : record_bytes;
      if (v.bytes == 0 || (v.record && records == 0)) continue;
      require(v.begin >= at_, "a variable begins at byte {}, inside the header", v.begin);
      require(v.begin <= file_.size && v.bytes <= file_.size - v.begin &&
                  (!v.record || records - 1 <= (file_.size - v.begin - v.bytes) / stride),
              "truncated: holds {} bytes, fewer than its header announces", file_.size);
    }
  }

  Variable read_variable() {
    skip_name();
    const auto rank = bounded("dimensions of a variable", 4);
    Variable v{0, 1, false};
    for (std::uint64_t d = 0; d < rank; ++d) {
      const auto index = count("dimension number");
      require(index < dimensions_.size(), "a variable names dimension {} of {}", index,
              dimensions_.size());
      if (dimensions_[index] == 0) {
        require(d == 0, "the record dimension is not the first of a variable");
        v.record = true;
      } else {
        require(v.bytes <= kMost / dimensions_[index], "impossible size of a variable");
        v.bytes *= dimensions_[index];
      }
    }
    skip_attributes();
    const auto size = type_size();
    require(v.bytes <= kMost / size, "impossible size of a variable");
    v.bytes *= size;
    big_endian(wide_count_ ? 8 : 4, "variable size");  // known from the shape
    v.begin = big_endian(wide_offset_ ? 8 : 4, "variable offset");
    require(v.begin <= kMost, "impossible offset of a variable");
    return v;
  }

  const Bytes& file_;
  const std::filesystem::path& name_;
  std::uint64_t at_ = 0, piece_begin_ = 0;
  std::vector<std::byte> piece_;  // of the file, from piece_begin_ on
  bool wide_count_ = false, wide_offset_ = false;
  std::vector<std::uint64_t> dimensions_;
};

}  // namespace

Bytes::Bytes(const InputFile& file)
    : size(file.size()),
      read([&file](std::uint64_t offset, std::span<std::byte> into) { file.read(offset, into); }) {}

Bytes::Bytes(std::span<const std::byte> memory)
    : size(memory.size()), read([memory](std::uint64_t offset, std::span<std::byte> into) {
        std::copy_n(memory.begin() + static_cast<std::ptrdiff_t>(offset), into.size(),
                    into.begin());
      }) {}

bool check_magic(const Bytes& file, const std::filesystem::path& name) {
  constexpr std::string_view hdf5 = "\x89HDF\r\n\x1a\n";
  std::string head(std::min<std::size_t>(file.size, hdf5.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  if (head == hdf5) return true;
  const bool classic =
      head.size() >= 4 && head.starts_with("CDF") && (head[3] == 1 || head[3] == 2 || head[3] == 5);
  HALCYON_CHECK_KIND(classic, input, "NetCDF", "{}: not a NetCDF file", name.string());
  check_classic_header(file, name);
  return false;
}

void check_classic_header(const Bytes& file, const std::filesystem::path& name) {
  Header(file, name).check();
}

}  // namespace halcyon::netcdf_detail
