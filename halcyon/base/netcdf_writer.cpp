// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <netcdf.h>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/netcdf_detail.h"
#include "halcyon/base/text.h"

namespace halcyon {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

nc_type stored_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBool:
    case at::kChar:
      return NC_BYTE;
    case at::kByte:
      return NC_UBYTE;
    case at::kShort:
      return NC_SHORT;
    case at::kInt:
      return NC_INT;
    case at::kLong:
      return NC_INT64;
    case at::kFloat:
      return NC_FLOAT;
    case at::kDouble:
      return NC_DOUBLE;
    default:
      throw_error(ErrorKind::argument, "NetCDF",
                  fmt::format("expected a dtype that NetCDF has, got {}", c10::toString(dtype)));
  }
}

}  // namespace

NetcdfWriter::NetcdfWriter(const std::filesystem::path& path) : path_(path) {
  const Lock lock(netcdf_detail::library_lock());
  const auto absolute = std::filesystem::absolute(path);
  check(nc_create(absolute.c_str(), NC_NETCDF4 | NC_CLOBBER, &id_), "cannot be made");
  // every value is written, so HDF5 need not fill first
  int old = 0;
  check(nc_set_fill(id_, NC_NOFILL, &old), "cannot be made");
}

NetcdfWriter::~NetcdfWriter() {
  const Lock lock(netcdf_detail::library_lock());
  if (id_ >= 0) nc_close(id_);
}

void NetcdfWriter::check(int status, std::string_view what) const {
  HALCYON_CHECK_KIND(status == NC_NOERR, output, "NetCDF", "{}: {}: {}", path_.string(), what,
                     nc_strerror(status));
}

void NetcdfWriter::dimension(const std::string& name, int64_t size) {
  HALCYON_CHECK(size >= 0 || size == kUnlimited, "NetCDF",
                "expected a size for dimension {}, got {}", name, size);
  HALCYON_CHECK(!dimensions_.contains(name), "NetCDF", "dimension {} is defined twice", name);
  const Lock lock(netcdf_detail::library_lock());
  int id = 0;
  // NetCDF has no fixed dimension of length 0: an unlimited one that never grew stands for it
  const auto length = size <= 0 ? NC_UNLIMITED : static_cast<std::size_t>(size);
  check(nc_def_dim(id_, name.c_str(), length, &id), name);
  dimensions_[name] = {id, size};
}

void NetcdfWriter::variable(const std::string& name, at::ScalarType dtype,
                            const std::vector<std::string>& dims,
                            const NetcdfVariableOptions& options) {
  HALCYON_CHECK(!variables_.contains(name), "NetCDF", "variable {} is defined twice", name);
  HALCYON_CHECK(options.compression >= 0 && options.compression <= 9, "NetCDF",
                "expected a compression of 0 to 9, got {}", options.compression);
  HALCYON_CHECK(options.chunks.empty() || options.chunks.size() == dims.size(), "NetCDF",
                "expected chunks of rank {} for {}, got {}", dims.size(), name,
                options.chunks.size());
  const auto type = stored_type(dtype);
  const Lock lock(netcdf_detail::library_lock());
  std::vector<int> ids;
  Declared made{0, dtype, {}, false};
  for (const auto& dim : dims) {
    const auto found = dimensions_.find(dim);
    HALCYON_CHECK(found != dimensions_.end(), "NetCDF", "variable {}: no dimension {}", name, dim);
    ids.push_back(found->second.first);
    made.shape.push_back(found->second.second);
  }
  check(nc_def_var(id_, name.c_str(), type, static_cast<int>(ids.size()), ids.data(), &made.id),
        name);
  if (!ids.empty()) {
    if (!options.chunks.empty()) {
      const std::vector<std::size_t> chunks(options.chunks.begin(), options.chunks.end());
      check(nc_def_var_chunking(id_, made.id, NC_CHUNKED, chunks.data()), name);
    }
    if (options.compression > 0) {
      check(nc_def_var_deflate(id_, made.id, 1, 1, options.compression), name);
      check(nc_def_var_fletcher32(id_, made.id, NC_FLETCHER32), name);
    }
  }
  if (options.fill)
    check(nc_put_att_double(id_, made.id, "_FillValue", type, 1, &*options.fill), name);
  variables_.emplace(name, std::move(made));
}

void NetcdfWriter::string_variable(const std::string& name, const std::vector<std::string>& dims) {
  HALCYON_CHECK(!variables_.contains(name), "NetCDF", "variable {} is defined twice", name);
  const Lock lock(netcdf_detail::library_lock());
  std::vector<int> ids;
  Declared made{0, at::kByte, {}, true};
  for (const auto& dim : dims) {
    const auto found = dimensions_.find(dim);
    HALCYON_CHECK(found != dimensions_.end(), "NetCDF", "variable {}: no dimension {}", name, dim);
    ids.push_back(found->second.first);
    made.shape.push_back(found->second.second);
  }
  check(
      nc_def_var(id_, name.c_str(), NC_STRING, static_cast<int>(ids.size()), ids.data(), &made.id),
      name);
  variables_.emplace(name, std::move(made));
}

const NetcdfWriter::Declared& NetcdfWriter::declared(const std::string& name) const {
  const auto found = variables_.find(name);
  HALCYON_CHECK(found != variables_.end(), "NetCDF", "no variable {} was defined", name);
  return found->second;
}

int NetcdfWriter::target(const std::string& variable) const {
  return variable.empty() ? NC_GLOBAL : declared(variable).id;
}

void NetcdfWriter::attribute(const std::string& variable, const std::string& name,
                             std::string_view text) {
  const Lock lock(netcdf_detail::library_lock());
  const auto valid = printable(text);
  check(nc_put_att_text(id_, target(variable), name.c_str(), valid.size(), valid.data()), name);
}

void NetcdfWriter::attribute(const std::string& variable, const std::string& name,
                             const std::vector<double>& values) {
  const Lock lock(netcdf_detail::library_lock());
  check(nc_put_att_double(id_, target(variable), name.c_str(), NC_DOUBLE, values.size(),
                          values.data()),
        name);
}

void NetcdfWriter::attribute(const std::string& variable, const std::string& name,
                             const std::vector<int32_t>& values) {
  const Lock lock(netcdf_detail::library_lock());
  check(nc_put_att_int(id_, target(variable), name.c_str(), NC_INT, values.size(), values.data()),
        name);
}

void NetcdfWriter::attribute(const std::string& variable, const std::string& name, int64_t value) {
  const Lock lock(netcdf_detail::library_lock());
  const long long wide = value;
  check(nc_put_att_longlong(id_, target(variable), name.c_str(), NC_INT64, 1, &wide), name);
}

void NetcdfWriter::write(const std::string& name, const at::Tensor& data,
                         std::vector<int64_t> start) {
  const auto& into = declared(name);
  HALCYON_CHECK(!into.strings && data.scalar_type() == into.dtype, "NetCDF",
                "variable {}: expected {}, got {}", name,
                into.strings ? "strings" : c10::toString(into.dtype),
                c10::toString(data.scalar_type()));
  const bool whole = start.empty();
  if (whole) start.assign(into.shape.size(), 0);
  bool fits =
      data.dim() == static_cast<int64_t>(into.shape.size()) && start.size() == into.shape.size();
  for (std::size_t d = 0; fits && d < start.size(); ++d) {
    const auto extent = data.size(static_cast<int64_t>(d));
    const auto room = into.shape[d];
    fits = start[d] >= 0 &&
           (room == kUnlimited || (whole ? extent == room : extent <= room - start[d]));
  }
  HALCYON_CHECK(fits, "NetCDF", "variable {}: expected a tensor within [{}], got [{}] at [{}]",
                name, fmt::join(into.shape, ", "), fmt::join(data.sizes(), ", "),
                fmt::join(start, ", "));
  if (data.numel() == 0) return;
  const auto host = data.detach().to(at::kCPU).contiguous();
  const std::vector<std::size_t> from(start.begin(), start.end()),
      extent(host.sizes().begin(), host.sizes().end());
  const Lock lock(netcdf_detail::library_lock());
  check(nc_put_vara(id_, into.id, from.data(), extent.data(), host.const_data_ptr()),
        fmt::format("cannot write {}", name));
}

void NetcdfWriter::write_strings(const std::string& name, const std::vector<std::string>& values) {
  const auto& into = declared(name);
  HALCYON_CHECK(
      into.strings && into.shape.size() == 1 &&
          (into.shape[0] == kUnlimited || into.shape[0] == static_cast<int64_t>(values.size())),
      "NetCDF", "variable {}: expected {} strings, got {}", name, fmt::join(into.shape, " x "),
      values.size());
  if (values.empty()) return;
  std::vector<std::string> valid;
  valid.reserve(values.size());
  for (const auto& value : values) valid.push_back(printable(value));
  std::vector<const char*> pointers;
  pointers.reserve(values.size());
  for (const auto& value : valid) pointers.push_back(value.c_str());
  const std::size_t from = 0, extent = values.size();
  const Lock lock(netcdf_detail::library_lock());
  check(nc_put_vara_string(id_, into.id, &from, &extent, pointers.data()),
        fmt::format("cannot write {}", name));
}

void NetcdfWriter::close() {
  const Lock lock(netcdf_detail::library_lock());
  const int id = std::exchange(id_, -1);
  if (id >= 0) check(nc_close(id), "cannot be written");
}

void write_netcdf(const std::filesystem::path& path,
                  const std::function<void(NetcdfWriter&)>& define) {
  write_atomically(path, [&](const std::filesystem::path& temporary) {
    NetcdfWriter writer(temporary);
    define(writer);
    writer.close();
  });
}

}  // namespace halcyon
