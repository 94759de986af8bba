// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/write_fields.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/state/healpix_mapping.h"

namespace halcyon::state {
namespace {

constexpr const char* kOperation = "write_fields";
constexpr float kFill = 9.96921e36f;  // netcdf-c's own fill value of float

using Texts = std::vector<std::pair<std::string, std::string>>;

void write_texts(NetcdfWriter& file, const std::string& variable, const Texts& attributes) {
  for (const auto& [name, text] : attributes)
    if (!text.empty()) file.attribute(variable, name, text);
}

void define_time(NetcdfWriter& file, const std::vector<int64_t>& times) {
  const bool whole_hours =
      std::all_of(times.begin(), times.end(), [](int64_t time) { return time % 3600 == 0; });
  file.dimension("time", static_cast<int64_t>(times.size()));
  file.variable("time", at::kDouble, {"time"});
  write_texts(file, "time",
              {{"standard_name", "time"},
               {"long_name", "time of the analysis"},
               {"units", whole_hours ? "hours since 1970-01-01 00:00:00"
                                     : "seconds since 1970-01-01 00:00:00"},
               {"calendar", "standard"},
               {"axis", "T"}});
  file.write("time", at::tensor(times, at::kLong).to(at::kDouble) / (whole_hours ? 3600.0 : 1.0));
}

Texts axis_texts(bool latitude) {
  return {{"standard_name", latitude ? "latitude" : "longitude"},
          {"long_name", latitude ? "latitude" : "longitude"},
          {"units", latitude ? "degrees_north" : "degrees_east"}};
}

void define_latlon(NetcdfWriter& file, const LatLonGrid& grid) {
  for (const bool latitude : {true, false}) {
    const std::string name = latitude ? "lat" : "lon";
    const auto& values = latitude ? grid.lat() : grid.lon();
    file.dimension(name, static_cast<int64_t>(values.size()));
    file.variable(name, at::kDouble, {name});
    write_texts(file, name, axis_texts(latitude));
    file.attribute(name, "axis", latitude ? "Y" : "X");
    file.write(name, at::tensor(values, at::kDouble));
  }
}

void check_names(const std::vector<Variable>& variables) {
  std::set<std::string> seen = {"time", "lat", "lon", kPixelDimension, kHealpixMapping};
  for (const auto& variable : variables)
    HALCYON_CHECK(
        !variable.name.empty() && seen.insert(variable.name).second, kOperation,
        "expected distinct names of variables other than those of coordinates, got \"{}\"",
        variable.name);
}

}  // namespace

void write_fields(const std::filesystem::path& path, const Fields& fields,
                  const ProductAttributes& attributes) {
  check(fields, kOperation);
  check_names(fields.variables);
  const auto* latlon = std::get_if<LatLonGrid>(&fields.grid);
  halcyon::write_netcdf(path, [&](NetcdfWriter& file) {
    file.attribute("", "Conventions", "CF-1.13");
    write_texts(file, "",
                {{"title", attributes.title},
                 {"institution", attributes.institution},
                 {"source", attributes.source},
                 {"history", attributes.history},
                 {"references", attributes.references},
                 {"comment", attributes.comment}});
    write_texts(file, "", attributes.more);

    std::vector<std::string> dimensions;
    std::vector<int64_t> shape;
    at::Tensor places;  // of the file's pixels in the region
    if (!fields.is_static()) {
      define_time(file, fields.times);
      dimensions.push_back("time");
      shape.push_back(static_cast<int64_t>(fields.times.size()));
    }
    if (latlon) {
      define_latlon(file, *latlon);
      dimensions.insert(dimensions.end(), {"lat", "lon"});
      shape.insert(shape.end(), {latlon->rows(), latlon->columns()});
    } else {
      places = define_healpix(file, std::get<Region>(fields.grid));
      dimensions.push_back(kPixelDimension);
      shape.push_back(size_of(fields.grid));
    }
    // one time a chunk: readers take maps more often than series
    std::vector<int64_t> chunks = shape;
    if (!fields.is_static()) chunks[0] = 1;
    const at::Tensor data = at::where(fields.data.isnan(), kFill, fields.data);
    for (std::size_t v = 0; v < fields.variables.size(); ++v) {
      const Variable& variable = fields.variables[v];
      file.variable(variable.name, at::kFloat, dimensions, {.fill = kFill, .chunks = chunks});
      write_texts(file, variable.name,
                  {{"standard_name", variable.standard_name},
                   {"long_name", variable.long_name},
                   {"units", variable.units.empty() ? "1" : variable.units},
                   {"cell_methods", fields.is_static() ? "" : "time: point"},
                   {"grid_mapping", latlon ? "" : kHealpixMapping},
                   {"coordinates", latlon ? "" : "lat lon"}});
      at::Tensor values = data.select(1, static_cast<int64_t>(v)).to(at::kFloat);
      if (places.defined()) values = values.index_select(1, places);
      file.write(variable.name, values.reshape(shape));
    }
  });
}

}  // namespace halcyon::state
