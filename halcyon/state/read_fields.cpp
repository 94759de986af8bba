// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/read_fields.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "halcyon/base/cf_time.h"
#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/time.h"
#include "halcyon/state/healpix_mapping.h"

namespace halcyon::state {
namespace {

enum class Axis { none, latitude, longitude, time };

constexpr const char* kOperation = "read_fields";

// The CF conventions identify coordinates by units first; files of before them only by name.
Axis axis_of(const NetcdfReader& file, const std::string& name) {
  if (!file.has(name) || file.variable(name).kind != NetcdfKind::number) return Axis::none;
  const std::string units = file.text(name, "units").value_or("");
  const std::string standard = file.text(name, "standard_name").value_or("");
  auto any = [](const std::string& text, std::initializer_list<const char*> of) {
    return std::any_of(of.begin(), of.end(), [&](const char* one) { return text == one; });
  };
  if (is_cf_time(units) || standard == "time") return Axis::time;
  // several times without units are an error, which read_cf_time tells
  if (name == "time" && units.empty() && file.variable(name).size() > 1) return Axis::time;
  if (any(units, {"degrees_north", "degree_north", "degreesN", "degreeN", "degree_N", "degrees_N"}))
    return Axis::latitude;
  if (any(units, {"degrees_east", "degree_east", "degreesE", "degreeE", "degree_E", "degrees_E"}))
    return Axis::longitude;
  if (any(standard, {"latitude"}) || any(name, {"lat", "latitude"})) return Axis::latitude;
  if (any(standard, {"longitude"}) || any(name, {"lon", "longitude"})) return Axis::longitude;
  return Axis::none;
}

// One gridded variable of the file: where its dimensions stand (-1: it has none such).
struct Layout {
  std::string name;
  int64_t time = -1, latitude = -1, longitude = -1, pixel = -1, level = -1;
  std::optional<HealpixMapping> healpix = std::nullopt;
  std::vector<double> levels;
};

std::string level_name(const std::string& name, double level) {
  return fmt::format("{}_{:g}", name, level);
}

std::optional<Layout> layout_of(const NetcdfReader& file, const NetcdfVariable& variable,
                                bool named) {
  if (variable.kind != NetcdfKind::number) return std::nullopt;
  Layout layout;
  layout.name = variable.name;
  layout.healpix = healpix_mapping(file, variable.name);
  if (layout.healpix) layout.pixel = layout.healpix->axis;
  std::string extra;
  for (std::size_t d = 0; d < variable.dimensions.size(); ++d) {
    const std::string& dimension = variable.dimensions[d];
    const auto at = static_cast<int64_t>(d);
    if (at == layout.pixel) continue;
    const Axis axis = axis_of(file, dimension);
    if (axis == Axis::latitude) {
      layout.latitude = at;
    } else if (axis == Axis::longitude) {
      layout.longitude = at;
    } else if (axis == Axis::time) {
      layout.time = at;
    } else if (variable.shape[d] != 1) {
      if (!extra.empty()) extra += ", ";
      extra += dimension;
      layout.level = at;
    }
  }
  // a coordinate itself (of one dimension, or auxiliary) is no field
  const bool coordinate = axis_of(file, variable.name) != Axis::none ||
                          is_healpix_index(file, variable.name) ||
                          variable.dimensions == std::vector{variable.name};
  const bool gridded = layout.pixel >= 0 || (layout.latitude >= 0 && layout.longitude >= 0);
  if (!gridded || coordinate) {
    HALCYON_CHECK_KIND(
        !named, input, kOperation,
        "{}: expected {} to have latitude and longitude dimensions or a HEALPix grid mapping, "
        "got ({})",
        file.path().string(), variable.name, fmt::join(variable.dimensions, ", "));
    return std::nullopt;
  }
  if (layout.level >= 0) {
    const std::string& dimension = variable.dimensions[static_cast<std::size_t>(layout.level)];
    const bool usable = extra == dimension && file.has(dimension) &&
                        file.variable(dimension).kind == NetcdfKind::number &&
                        file.variable(dimension).shape.size() == 1;
    if (!usable && !named) return std::nullopt;
    HALCYON_CHECK_KIND(usable, input, kOperation,
                       "{}: expected {} to have at most one dimension of levels, got {}",
                       file.path().string(), variable.name, extra);
    const at::Tensor levels = file.read_physical(dimension, at::kDouble).contiguous();
    layout.levels.assign(levels.const_data_ptr<double>(),
                         levels.const_data_ptr<double>() + levels.numel());
  }
  return layout;
}

std::vector<double> coordinate(const NetcdfReader& file, const std::string& name) {
  HALCYON_CHECK_KIND(file.variable(name).shape.size() == 1, input, kOperation,
                     "{}: expected {} of rank 1, got rank {}", file.path().string(), name,
                     file.variable(name).shape.size());
  const at::Tensor values = file.read_physical(name, at::kDouble).contiguous();
  const double* first = values.const_data_ptr<double>();
  std::vector<double> out(first, first + values.numel());
  return out;
}

struct Source {
  const NetcdfReader& file;
  std::string latitude, longitude, pixel, time;  // dimension names; empty where there is none
  std::optional<HealpixMapping> healpix = std::nullopt;
  bool drop_last_meridian = false;
  at::Tensor places = {};  // of the region's pixels in the file; undefined: as they stand
};

Source source_of(const NetcdfReader& file, const Layout& layout) {
  const auto& names = file.variable(layout.name).dimensions;
  auto name = [&](int64_t d) { return d < 0 ? std::string() : names[static_cast<std::size_t>(d)]; };
  return {file,
          name(layout.latitude),
          name(layout.longitude),
          name(layout.pixel),
          name(layout.time),
          layout.healpix};
}

// The same numbers of the same grid; they may stand at another place among the dimensions.
bool same_pixels(const Source& a, const Source& b) {
  if (!a.healpix || !b.healpix) return !a.healpix && !b.healpix;
  return a.healpix->level == b.healpix->level && a.healpix->order == b.healpix->order &&
         a.healpix->index == b.healpix->index;
}

Grid read_grid(Source& source) {
  const NetcdfReader& file = source.file;
  if (source.healpix) {
    const auto [region, places] = read_healpix(file, *source.healpix, file.dimension(source.pixel));
    if (!places.equal(at::arange(places.numel(), at::kLong))) source.places = places;
    return region;
  }
  auto lat = coordinate(file, source.latitude), lon = coordinate(file, source.longitude);
  source.drop_last_meridian = lon.size() > 2 && std::abs(lon.back() - lon.front()) > 360 - 1e-4;
  if (source.drop_last_meridian) lon.pop_back();
  try {
    return LatLonGrid(std::move(lat), std::move(lon));
  } catch (const Error& error) {
    throw Error(ErrorKind::input, file.path().string() + ": " + error.what());
  }
}

std::vector<int64_t> read_times(const Source& source) {
  if (source.time.empty()) return {};
  const NetcdfReader& file = source.file;
  const std::string path = file.path().string();
  const at::Tensor values = read_cf_time(file, source.time);
  HALCYON_CHECK_KIND(values.dim() == 1 && values.ne(kMissingTime).all().item<bool>(), input,
                     kOperation, "{}: expected every {} to be present", path, source.time);
  std::vector<int64_t> times(values.const_data_ptr<int64_t>(),
                             values.const_data_ptr<int64_t>() + values.numel());
  for (std::size_t t = 1; t < times.size(); ++t)
    HALCYON_CHECK_KIND(times[t - 1] < times[t], input, kOperation,
                       "{}: expected ascending times, got {} before {}", path,
                       format_time(times[t - 1]), format_time(times[t]));
  return times;
}

// (T, levels or 1, X) of one variable at the times with these indices.
at::Tensor read_variable(const Source& source, const Layout& layout,
                         const std::vector<int64_t>& indices) {
  const NetcdfVariable& variable = source.file.variable(layout.name);
  std::vector<int64_t> start(variable.shape.size(), 0), count = variable.shape, order;
  for (const int64_t d :
       {layout.time, layout.level, layout.latitude, layout.longitude, layout.pixel})
    if (d >= 0) order.push_back(d);
  for (int64_t d = 0; d < static_cast<int64_t>(variable.shape.size()); ++d)  // of length 1
    if (std::find(order.begin(), order.end(), d) == order.end()) order.push_back(d);

  std::vector<at::Tensor> parts;
  for (std::size_t begin = 0; begin < indices.size();) {
    std::size_t end = begin + 1;  // a run of consecutive times is read at once
    while (end < indices.size() && indices[end] == indices[end - 1] + 1) ++end;
    if (layout.time >= 0) {
      start[static_cast<std::size_t>(layout.time)] = indices[begin];
      count[static_cast<std::size_t>(layout.time)] = static_cast<int64_t>(end - begin);
    }
    at::Tensor part = source.file.read_physical(layout.name, at::kFloat, start, count);
    part = part.permute(order);
    if (source.drop_last_meridian) {
      const int64_t lon = (layout.time >= 0) + (layout.level >= 0) + 1;
      part = part.narrow(lon, 0, part.size(lon) - 1);
    }
    const auto levels = static_cast<int64_t>(std::max<std::size_t>(1, layout.levels.size()));
    part = part.reshape({static_cast<int64_t>(end - begin), levels, -1});
    if (source.places.defined()) part = part.index_select(2, source.places);
    parts.push_back(part);
    begin = end;
  }
  return at::cat(parts, 0);
}

// What to take of one variable: all of it, or one level.
struct Wanted {
  Layout layout;
  std::optional<std::size_t> level;
};

std::vector<Wanted> wanted_variables(const NetcdfReader& file, const ReadOptions& options) {
  std::vector<Wanted> wanted;
  if (options.variables.empty()) {
    for (const auto& variable : file.variables()) {
      if (options.first_only && !wanted.empty()) break;
      if (auto layout = layout_of(file, variable, false)) wanted.push_back({*layout, std::nullopt});
    }
    HALCYON_CHECK_KIND(!wanted.empty(), input, kOperation,
                       "{}: expected gridded variables, got none", file.path().string());
    return wanted;
  }
  for (const auto& name : options.variables) {
    bool found = false;
    if (!file.has(name))
      for (const auto& variable : file.variables()) {
        const auto layout = layout_of(file, variable, false);
        for (std::size_t l = 0; layout && !found && l < layout->levels.size(); ++l)
          if (level_name(variable.name, layout->levels[l]) == name) {
            wanted.push_back({*layout, l});
            found = true;
          }
      }
    if (!found) wanted.push_back({*layout_of(file, file.variable(name), true), std::nullopt});
  }
  return wanted;
}

}  // namespace

Fields read_fields(const std::filesystem::path& path, const ReadOptions& options) {
  const NetcdfReader file(path);
  const std::vector<Wanted> wanted = wanted_variables(file, options);
  Source source = source_of(file, wanted.front().layout);
  Fields fields{{}, read_grid(source), read_times(source), {}};

  std::vector<int64_t> indices(std::max<std::size_t>(1, fields.times.size()));
  std::iota(indices.begin(), indices.end(), 0);
  HALCYON_CHECK_KIND(source.time.empty() || !fields.times.empty(), input, kOperation,
                     "{}: expected fields, got no times", path.string());
  if (options.times) {
    HALCYON_CHECK_KIND(!source.time.empty(), input, kOperation,
                       "{}: expected fields with times, got static ones", path.string());
    HALCYON_CHECK(!options.times->empty(), kOperation, "expected times to read, got an empty list");
    indices = time_indices(fields.times, *options.times, kOperation, path.string());
    fields.times = *options.times;
  }

  std::vector<at::Tensor> data;
  for (const auto& [layout, level] : wanted) {
    const Source here = source_of(file, layout);
    HALCYON_CHECK_KIND(here.latitude == source.latitude && here.longitude == source.longitude &&
                           here.pixel == source.pixel && here.time == source.time &&
                           same_pixels(here, source),
                       input, kOperation,
                       "{}: expected all variables on the dimensions of {}, got {} on others; name "
                       "the variables to read",
                       path.string(), wanted.front().layout.name, layout.name);
    Variable variable{layout.name, file.text(layout.name, "standard_name").value_or(""),
                      file.text(layout.name, "long_name").value_or(""),
                      file.text(layout.name, "units").value_or("")};
    at::Tensor values = read_variable(source, layout, indices);
    if (level) values = values.narrow(1, static_cast<int64_t>(*level), 1);
    data.push_back(values);
    for (std::size_t l = 0; l < std::max<std::size_t>(1, layout.levels.size()); ++l) {
      if (level && l != *level) continue;
      fields.variables.push_back(variable);
      if (!layout.levels.empty())
        fields.variables.back().name = level_name(layout.name, layout.levels[l]);
    }
  }
  fields.data = at::cat(data, 1).contiguous();
  check(fields, kOperation);
  return fields;
}

}  // namespace halcyon::state
