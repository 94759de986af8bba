// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// A thin wrapper of netcdf-c: classic (CDF-1, 2, 5) and NetCDF-4 files, root group. The library is
// not thread-safe; every call here holds one lock.
namespace halcyon {

class InputFile;

namespace netcdf_detail {
struct Packing;
}

struct NetcdfDimension {
  std::string name;
  int64_t size = 0;
  bool unlimited = false;
};

// What a variable holds. Unsigned types wider than a byte are read as the next wider signed type,
// which is the one given here.
enum class NetcdfKind { number, text, string, unsupported };

struct NetcdfVariable {
  std::string name;
  NetcdfKind kind = NetcdfKind::unsupported;
  at::ScalarType dtype =
      at::kFloat;  // of number: kChar, kByte, kShort, kInt, kLong, kFloat, kDouble
  std::vector<std::string> dimensions;
  std::vector<int64_t> shape;
  int64_t size() const;
};

// A file open for reading. Every failure is Error(input) that names the file and the reason:
// missing, truncated, corrupt, sizes that the file cannot hold, a name that is not there (with the
// names that are). A NetCDF-4 file is first read by a forked child, as a corrupt one can crash
// HDF5.
class NetcdfReader {
 public:
  // A gzipped file is unpacked into memory first.
  explicit NetcdfReader(const std::filesystem::path& path);
  // The bytes of a file; name is for messages.
  NetcdfReader(std::vector<std::byte> bytes, const std::filesystem::path& name);
  ~NetcdfReader();
  NetcdfReader(const NetcdfReader&) = delete;
  NetcdfReader& operator=(const NetcdfReader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<NetcdfDimension>& dimensions() const { return dimensions_; }
  const std::vector<NetcdfVariable>& variables() const { return variables_; }
  bool has(std::string_view variable) const;
  bool has_dimension(std::string_view dimension) const;
  const NetcdfVariable& variable(std::string_view name) const;
  int64_t dimension(std::string_view name) const;

  // Attributes; an empty variable name means the file's own. Nothing where there is none or it is
  // of the other kind (a number for text, text for a number).
  std::optional<std::string> text(std::string_view variable, std::string_view attribute) const;
  std::optional<std::vector<double>> numbers(std::string_view variable,
                                             std::string_view attribute) const;
  // All attributes that are text, by name.
  std::map<std::string, std::string> texts(std::string_view variable) const;

  // Numbers as stored, in the variable's dtype and shape.
  at::Tensor read(std::string_view variable) const;
  // The part that begins at start and has the shape count (both of the variable's rank).
  at::Tensor read(std::string_view variable, const std::vector<int64_t>& start,
                  const std::vector<int64_t>& count) const;
  // Physical values by the NetCDF users' guide and CF, as kFloat or kDouble, NaN where missing:
  // _FillValue and missing_value (each in the variable's type) and what is outside valid_min,
  // valid_max, valid_range (of stored numbers, or of values where they have the type of
  // scale_factor); then scale_factor and add_offset. _Unsigned is heeded. Without a _FillValue the
  // type's default fill value is missing too (bytes excepted). Attributes that make no sense are
  // Error(input) with their name.
  at::Tensor read_physical(std::string_view variable, at::ScalarType dtype) const;
  at::Tensor read_physical(std::string_view variable, at::ScalarType dtype,
                           const std::vector<int64_t>& start,
                           const std::vector<int64_t>& count) const;
  // Whole numbers by the same rules, int64, with missing in place of what is missing.
  at::Tensor read_integers(std::string_view variable, int64_t missing) const;
  // Strings, row-major, empty where _FillValue or missing_value says so: a string variable as it
  // is; of a text variable each row along the last dimension up to the first NUL, trailing blanks
  // taken off. A text variable of rank 0 or 1 is one string, unless characters is true: then each
  // character is a string.
  std::vector<std::string> read_strings(std::string_view variable, bool characters = false) const;

 private:
  void open(const std::function<int(int*)>& library_open, bool hdf5);
  void open_memory();
  void list();
  // Throws Error(input) when the file on disk is not as it was when opened.
  void check_unchanged() const;
  void check_size(const NetcdfVariable& variable, const std::vector<int64_t>& count,
                  int64_t item) const;
  int id_of(std::string_view variable) const;
  void check_part(const NetcdfVariable& variable, const std::vector<int64_t>& start,
                  const std::vector<int64_t>& count) const;
  std::pair<at::Tensor, netcdf_detail::Packing> read_stored(
      const NetcdfVariable& variable, const std::vector<int64_t>& start,
      const std::vector<int64_t>& count) const;

  std::filesystem::path path_;
  std::shared_ptr<const InputFile> file_;  // of a file on disk
  std::vector<std::byte> bytes_;           // of a file in memory
  std::size_t file_size_ = 0;
  int id_ = -1;
  std::vector<NetcdfDimension> dimensions_;
  std::vector<NetcdfVariable> variables_;
};

struct NetcdfVariableOptions {
  int compression = 4;  // deflate level 0..9 with shuffle and checksums; rank 0 is never compressed
  std::optional<double> fill;  // _FillValue, in the variable's type
  std::vector<int64_t> chunks =
      {};  // storage chunk, of the variable's rank; empty lets the library choose
};

// A NetCDF-4 file being written, by write_netcdf only. Dimensions first, then variables and
// attributes, then data. Failures are Error(output) naming the file.
class NetcdfWriter {
 public:
  static constexpr int64_t kUnlimited = -1;
  explicit NetcdfWriter(const std::filesystem::path& path);
  ~NetcdfWriter();
  NetcdfWriter(const NetcdfWriter&) = delete;
  NetcdfWriter& operator=(const NetcdfWriter&) = delete;

  void dimension(const std::string& name, int64_t size);
  // dtype: kBool (as bytes), kChar, kByte, kShort, kInt, kLong, kFloat or kDouble.
  void variable(const std::string& name, at::ScalarType dtype,
                const std::vector<std::string>& dimensions,
                const NetcdfVariableOptions& options = {});
  void string_variable(const std::string& name, const std::vector<std::string>& dimensions);
  // An empty variable name means the file's own attribute.
  void attribute(const std::string& variable, const std::string& name, std::string_view text);
  void attribute(const std::string& variable, const std::string& name,
                 const std::vector<double>& values);
  void attribute(const std::string& variable, const std::string& name,
                 const std::vector<int32_t>& values);
  void attribute(const std::string& variable, const std::string& name, int64_t value);
  // The whole variable (an unlimited dimension grows to the tensor's size), or the part at start.
  // The tensor has the variable's dtype and may be strided.
  void write(const std::string& variable, const at::Tensor& data, std::vector<int64_t> start = {});
  void write_strings(const std::string& variable, const std::vector<std::string>& values);
  // Flushes and closes; errors of the disk may show only here.
  void close();

 private:
  struct Declared {
    int id;
    at::ScalarType dtype;
    std::vector<int64_t> shape;  // -1 where unlimited
    bool strings;
  };
  const Declared& declared(const std::string& variable) const;
  int target(const std::string& variable) const;
  void check(int status, std::string_view what) const;

  std::filesystem::path path_;
  int id_ = -1;
  std::map<std::string, std::pair<int, int64_t>> dimensions_;
  std::map<std::string, Declared> variables_;
};

// Calls define(writer) on a temporary file beside path and renames it when all went well.
void write_netcdf(const std::filesystem::path& path,
                  const std::function<void(NetcdfWriter&)>& define);

}  // namespace halcyon
