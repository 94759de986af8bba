// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <netcdf.h>
#include <netcdf_mem.h>

#include <algorithm>
#include <array>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/base/gzip.h"
#include "halcyon/base/input_file.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/netcdf_detail.h"
#include "halcyon/base/netcdf_packing.h"

namespace halcyon {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

void check(int status, const std::filesystem::path& path, std::string_view what) {
  HALCYON_CHECK_KIND(status == NC_NOERR, input, "NetCDF", "{}: {}: {}", path.string(), what,
                     nc_strerror(status));
}

std::pair<NetcdfKind, at::ScalarType> kind_of(nc_type type) {
  switch (type) {
    case NC_BYTE:
      return {NetcdfKind::number, at::kChar};
    case NC_UBYTE:
      return {NetcdfKind::number, at::kByte};
    case NC_SHORT:
      return {NetcdfKind::number, at::kShort};
    case NC_USHORT:
    case NC_INT:
      return {NetcdfKind::number, at::kInt};
    case NC_UINT:
    case NC_INT64:
    case NC_UINT64:
      return {NetcdfKind::number, at::kLong};
    case NC_FLOAT:
      return {NetcdfKind::number, at::kFloat};
    case NC_DOUBLE:
      return {NetcdfKind::number, at::kDouble};
    case NC_CHAR:
      return {NetcdfKind::text, at::kByte};
    case NC_STRING:
      return {NetcdfKind::string, at::kByte};
    default:
      return {NetcdfKind::unsupported, at::kByte};
  }
}

int get(int file, int id, const std::size_t* start, const std::size_t* count, at::Tensor& out) {
  void* data = out.data_ptr();
  switch (out.scalar_type()) {
    case at::kChar:
      return nc_get_vara_schar(file, id, start, count, static_cast<signed char*>(data));
    case at::kByte:
      return nc_get_vara_uchar(file, id, start, count, static_cast<unsigned char*>(data));
    case at::kShort:
      return nc_get_vara_short(file, id, start, count, static_cast<short*>(data));
    case at::kInt:
      return nc_get_vara_int(file, id, start, count, static_cast<int*>(data));
    case at::kLong:
      return nc_get_vara_longlong(file, id, start, count, static_cast<long long*>(data));
    case at::kFloat:
      return nc_get_vara_float(file, id, start, count, static_cast<float*>(data));
    default:
      return nc_get_vara_double(file, id, start, count, static_cast<double*>(data));
  }
}

// What stands where no character was written.
char fill_character(int file, int id) {
  nc_type type = NC_NAT;
  std::size_t size = 0;
  char fill = NC_FILL_CHAR;
  if (nc_inq_att(file, id, "_FillValue", &type, &size) == NC_NOERR && type == NC_CHAR && size == 1)
    nc_get_att_text(file, id, "_FillValue", &fill);
  return fill;
}

std::string trimmed(const char* text, std::size_t size) {
  size = static_cast<std::size_t>(std::find(text, text + size, '\0') - text);
  while (size > 0 && text[size - 1] == ' ') --size;
  return {text, size};
}

}  // namespace

namespace netcdf_detail {
// At the end of the process HDF5 closes what is still open, and crashes on a file that could not be
// closed because the disk was full. All files are closed by then that can be.
bool without_hdf5_at_exit() {
  auto* const f = reinterpret_cast<int (*)()>(::dlsym(RTLD_DEFAULT, "H5dont_atexit"));
  return f != nullptr && f() >= 0;
}

std::recursive_mutex& library_lock() {
  [[maybe_unused]] static const bool done = without_hdf5_at_exit();
  static std::recursive_mutex lock;
  return lock;
}
}  // namespace netcdf_detail

int64_t NetcdfVariable::size() const {
  int64_t product = 1;
  for (const auto extent : shape) product *= extent;
  return product;
}

NetcdfReader::NetcdfReader(const std::filesystem::path& path) : path_(path) {
  file_ = std::make_shared<InputFile>(path);
  std::array<std::byte, 2> start{};
  if (file_->size() >= start.size()) file_->read(0, start);
  if (is_gzip(start)) {
    bytes_ = gunzip(read_bytes(path), path);
    file_.reset();
    open_memory();
    return;
  }
  const bool hdf5 = netcdf_detail::check_magic(netcdf_detail::Bytes(*file_), path);
  file_size_ = file_->size();
  // absolute: netcdf-c would take a relative path that looks like a URL for one
  const auto absolute = std::filesystem::absolute(path);
  open([&](int* id) { return nc_open(absolute.c_str(), NC_NOWRITE, id); }, hdf5);
}

void NetcdfReader::check_unchanged() const {
  if (file_) file_->check_unchanged();
}

NetcdfReader::NetcdfReader(std::vector<std::byte> bytes, const std::filesystem::path& name)
    : path_(name), bytes_(std::move(bytes)) {
  if (is_gzip(bytes_)) bytes_ = gunzip(bytes_, name);
  open_memory();
}

NetcdfReader::~NetcdfReader() {
  const Lock lock(netcdf_detail::library_lock());
  if (id_ >= 0) nc_close(id_);
}

void NetcdfReader::open_memory() {
  const bool hdf5 =
      netcdf_detail::check_magic(netcdf_detail::Bytes(std::span<const std::byte>(bytes_)), path_);
  file_size_ = bytes_.size();
  open(
      [this](int* id) {
        return nc_open_mem(path_.c_str(), NC_NOWRITE, bytes_.size(), bytes_.data(), id);
      },
      hdf5);
}

void NetcdfReader::open(const std::function<int(int*)>& library_open, bool hdf5) {
  const Lock lock(netcdf_detail::library_lock());
  if (hdf5) netcdf_detail::check_hdf5(library_open, path_);
  check(library_open(&id_), path_, "cannot be opened");
  try {
    // netcdf-c opens the path again: the file there must be the one that was checked
    HALCYON_CHECK_KIND(!file_ || file_->is_at_its_path(), input, "NetCDF",
                       "{}: was replaced by another file while it was opened", path_.string());
    list();
    check_unchanged();
  } catch (...) {
    nc_close(id_);
    id_ = -1;
    throw;
  }
}

void NetcdfReader::list() {
  int dims = 0, unlimited = 0, vars = 0;
  check(nc_inq_dimids(id_, &dims, nullptr, 0), path_, "dimensions");
  std::vector<int> ids(static_cast<std::size_t>(dims));
  check(nc_inq_dimids(id_, &dims, ids.data(), 0), path_, "dimensions");
  check(nc_inq_unlimdims(id_, &unlimited, nullptr), path_, "dimensions");
  std::vector<int> growing(static_cast<std::size_t>(unlimited));
  check(nc_inq_unlimdims(id_, &unlimited, growing.data()), path_, "dimensions");
  char name[NC_MAX_NAME + 1];
  for (const int id : ids) {
    std::size_t size = 0;
    check(nc_inq_dim(id_, id, name, &size), path_, "dimensions");
    dimensions_.push_back({netcdf_detail::in_utf8(name), static_cast<int64_t>(size),
                           std::find(growing.begin(), growing.end(), id) != growing.end()});
  }
  check(nc_inq_nvars(id_, &vars), path_, "variables");
  for (int id = 0; id < vars; ++id) {
    nc_type type = NC_NAT;
    int rank = 0;
    check(nc_inq_var(id_, id, name, &type, &rank, nullptr, nullptr), path_, "variables");
    std::vector<int> of(static_cast<std::size_t>(rank));
    check(nc_inq_vardimid(id_, id, of.data()), path_, "variables");
    NetcdfVariable variable;
    variable.name = netcdf_detail::in_utf8(name);
    std::tie(variable.kind, variable.dtype) = kind_of(type);
    int64_t elements = 1;
    for (const int dim : of) {
      std::size_t size = 0;
      check(nc_inq_dim(id_, dim, name, &size), path_, "dimensions");
      variable.dimensions.push_back(netcdf_detail::in_utf8(name));
      variable.shape.push_back(static_cast<int64_t>(size));
      HALCYON_CHECK_KIND(
          size <= (std::size_t{1} << 62) &&
              !__builtin_mul_overflow(elements, static_cast<int64_t>(size), &elements),
          input, "NetCDF", "{}: impossible size of variable {}", path_.string(), variable.name);
    }
    variables_.push_back(std::move(variable));
  }
}

bool NetcdfReader::has(std::string_view name) const {
  return std::any_of(variables_.begin(), variables_.end(),
                     [&](const auto& v) { return v.name == name; });
}

bool NetcdfReader::has_dimension(std::string_view name) const {
  return std::any_of(dimensions_.begin(), dimensions_.end(),
                     [&](const auto& d) { return d.name == name; });
}

int NetcdfReader::id_of(std::string_view name) const {
  if (name.empty()) return NC_GLOBAL;
  const auto found = std::find_if(variables_.begin(), variables_.end(),
                                  [&](const auto& v) { return v.name == name; });
  if (found == variables_.end()) {
    std::string names;
    for (const auto& v : variables_) names += (names.empty() ? "" : ", ") + v.name;
    throw_error(ErrorKind::input, "NetCDF",
                fmt::format("{}: no variable {}; it has {}", path_.string(), name, names));
  }
  return static_cast<int>(found - variables_.begin());
}

const NetcdfVariable& NetcdfReader::variable(std::string_view name) const {
  HALCYON_CHECK(!name.empty(), "NetCDF", "expected the name of a variable, got none");
  return variables_[static_cast<std::size_t>(id_of(name))];
}

int64_t NetcdfReader::dimension(std::string_view name) const {
  for (const auto& d : dimensions_) {
    if (d.name == name) return d.size;
  }
  throw_error(ErrorKind::input, "NetCDF", fmt::format("{}: no dimension {}", path_.string(), name));
}

std::optional<std::string> NetcdfReader::text(std::string_view name,
                                              std::string_view attribute) const {
  const Lock lock(netcdf_detail::library_lock());
  const int id = id_of(name);
  const std::string key(attribute);
  nc_type type = NC_NAT;
  std::size_t size = 0;
  if (nc_inq_att(id_, id, key.c_str(), &type, &size) != NC_NOERR) return std::nullopt;
  if (type == NC_CHAR) {
    std::string value(size, '\0');
    check(nc_get_att_text(id_, id, key.c_str(), value.data()), path_, key);
    return netcdf_detail::in_utf8(trimmed(value.data(), value.size()));
  }
  if (type != NC_STRING || size != 1) return std::nullopt;
  char* value = nullptr;
  check(nc_get_att_string(id_, id, key.c_str(), &value), path_, key);
  std::string copy(value ? value : "");
  nc_free_string(1, &value);
  return netcdf_detail::in_utf8(std::move(copy));
}

std::optional<std::vector<double>> NetcdfReader::numbers(std::string_view name,
                                                         std::string_view attribute) const {
  const Lock lock(netcdf_detail::library_lock());
  const int id = id_of(name);
  const std::string key(attribute);
  nc_type type = NC_NAT;
  std::size_t size = 0;
  if (nc_inq_att(id_, id, key.c_str(), &type, &size) != NC_NOERR) return std::nullopt;
  if (kind_of(type).first != NetcdfKind::number) return std::nullopt;
  std::vector<double> values(size);
  check(nc_get_att_double(id_, id, key.c_str(), values.data()), path_, key);
  return values;
}

std::map<std::string, std::string> NetcdfReader::texts(std::string_view name) const {
  const Lock lock(netcdf_detail::library_lock());
  const int id = id_of(name);
  int count = 0;
  check(nc_inq_varnatts(id_, id, &count), path_, "attributes");
  std::map<std::string, std::string> all;
  char key[NC_MAX_NAME + 1];
  for (int i = 0; i < count; ++i) {
    check(nc_inq_attname(id_, id, i, key), path_, "attributes");
    if (auto value = text(name, key)) all.emplace(netcdf_detail::in_utf8(key), std::move(*value));
  }
  return all;
}

void NetcdfReader::check_size(const NetcdfVariable& info, const std::vector<int64_t>& count,
                              int64_t item) const {
  // deflate packs 1032 bytes into one at most, so nothing larger was ever written to this file
  const auto most = static_cast<int64_t>(file_size_) * 1100 + (int64_t{1} << 26);
  int64_t bytes = item;
  for (const auto extent : count) {
    HALCYON_CHECK_KIND(!__builtin_mul_overflow(bytes, extent, &bytes) && bytes <= most, input,
                       "NetCDF", "{}: variable {} announces more than a file of {} bytes can hold",
                       path_.string(), info.name, file_size_);
  }
}

at::Tensor NetcdfReader::read(std::string_view name) const {
  const auto& info = variable(name);
  return read(name, std::vector<int64_t>(info.shape.size(), 0), info.shape);
}

at::Tensor NetcdfReader::read(std::string_view name, const std::vector<int64_t>& start,
                              const std::vector<int64_t>& count) const {
  const Lock lock(netcdf_detail::library_lock());
  const auto& info = variable(name);
  check_part(info, start, count);
  auto out = at::empty(count, info.dtype);
  if (out.numel() == 0) return out;
  const std::vector<std::size_t> from(start.begin(), start.end()),
      extent(count.begin(), count.end());
  check(get(id_, id_of(name), from.data(), extent.data(), out), path_,
        fmt::format("cannot read {}", name));
  check_unchanged();
  return out;
}

void NetcdfReader::check_part(const NetcdfVariable& info, const std::vector<int64_t>& start,
                              const std::vector<int64_t>& count) const {
  HALCYON_CHECK_KIND(info.kind == NetcdfKind::number, input, "NetCDF",
                     "{}: expected numbers in variable {}", path_.string(), info.name);
  HALCYON_CHECK(start.size() == info.shape.size() && count.size() == info.shape.size(), "NetCDF",
                "expected start and count of rank {} for {}, got {} and {}", info.shape.size(),
                info.name, start.size(), count.size());
  for (std::size_t d = 0; d < start.size(); ++d) {
    HALCYON_CHECK(start[d] >= 0 && count[d] >= 0 && start[d] <= info.shape[d] &&
                      count[d] <= info.shape[d] - start[d],
                  "NetCDF", "expected a part of {} within {} along {}, got {} from {}", info.name,
                  info.shape[d], info.dimensions[d], count[d], start[d]);
  }
  check_size(info, count, static_cast<int64_t>(c10::elementSize(info.dtype)));
}

std::pair<at::Tensor, netcdf_detail::Packing> NetcdfReader::read_stored(
    const NetcdfVariable& info, const std::vector<int64_t>& start,
    const std::vector<int64_t>& count) const {
  const Lock lock(netcdf_detail::library_lock());
  check_part(info, start, count);
  const int id = id_of(info.name);
  nc_type type = NC_NAT;
  check(nc_inq_vartype(id_, id, &type), path_, info.name);
  auto packing = netcdf_detail::read_packing(
      id_, id, type, fmt::format("{}: variable {}", path_.string(), info.name));
  auto stored = netcdf_detail::raw_numbers(count, type);
  if (stored.numel() > 0) {
    const std::vector<std::size_t> from(start.begin(), start.end()),
        extent(count.begin(), count.end());
    check(nc_get_vara(id_, id, from.data(), extent.data(), stored.data_ptr()), path_,
          fmt::format("cannot read {}", info.name));
  }
  check_unchanged();
  return {std::move(stored), std::move(packing)};
}

at::Tensor NetcdfReader::read_physical(std::string_view name, at::ScalarType dtype) const {
  const auto& info = variable(name);
  return read_physical(name, dtype, std::vector<int64_t>(info.shape.size(), 0), info.shape);
}

at::Tensor NetcdfReader::read_physical(std::string_view name, at::ScalarType dtype,
                                       const std::vector<int64_t>& start,
                                       const std::vector<int64_t>& count) const {
  HALCYON_CHECK(dtype == at::kFloat || dtype == at::kDouble, "NetCDF",
                "expected float32 or float64, got {}", c10::toString(dtype));
  const auto [stored, packing] = read_stored(variable(name), start, count);
  return netcdf_detail::decode(stored, packing, dtype);
}

at::Tensor NetcdfReader::read_integers(std::string_view name, int64_t missing) const {
  const auto& info = variable(name);
  const auto [stored, packing] =
      read_stored(info, std::vector<int64_t>(info.shape.size(), 0), info.shape);
  return netcdf_detail::decode_integers(stored, packing, missing);
}

std::vector<std::string> NetcdfReader::read_strings(std::string_view name, bool characters) const {
  const Lock lock(netcdf_detail::library_lock());
  const auto& info = variable(name);
  HALCYON_CHECK_KIND(info.kind == NetcdfKind::text || info.kind == NetcdfKind::string, input,
                     "NetCDF", "{}: expected text in variable {}", path_.string(), name);
  const auto elements = static_cast<std::size_t>(info.size());
  const auto what = fmt::format("cannot read {}", name);
  const std::vector<std::size_t> start(info.shape.size() + 1, 0);
  std::vector<std::size_t> count(info.shape.begin(), info.shape.end());
  count.push_back(0);  // never empty, for data()
  std::vector<std::string> out;
  if (info.kind == NetcdfKind::string) {
    check_size(info, info.shape, sizeof(char*));
    std::vector<char*> values(elements, nullptr);
    if (elements == 0) return out;
    check(nc_get_vara_string(id_, id_of(name), start.data(), count.data(), values.data()), path_,
          what);
    for (const char* value : values) out.emplace_back(value ? value : "");
    nc_free_string(values.size(), values.data());
    check_unchanged();
    for (const char* mark : {"_FillValue", "missing_value"}) {
      if (const auto none = text(name, mark))
        std::replace(out.begin(), out.end(), *none, std::string());
    }
    netcdf_detail::make_utf8(out, text(name, "_Encoding"), path_, name);
    return out;
  }
  check_size(info, info.shape, 1);
  std::string all(elements, '\0');
  if (elements == 0) return out;
  check(nc_get_vara_text(id_, id_of(name), start.data(), count.data(), all.data()), path_, what);
  check_unchanged();
  const auto unwritten = fill_character(id_, id_of(name));
  const std::size_t width = characters           ? 1
                            : info.shape.empty() ? 1
                                                 : static_cast<std::size_t>(info.shape.back());
  for (std::size_t at = 0; at < all.size(); at += width) {
    std::string_view row(&all[at], width);
    if (row.find_first_not_of(unwritten) == std::string_view::npos) row = {};
    out.push_back(trimmed(row.data(), row.size()));
  }
  netcdf_detail::make_utf8(out, text(name, "_Encoding"), path_, name);
  return out;
}

}  // namespace halcyon
