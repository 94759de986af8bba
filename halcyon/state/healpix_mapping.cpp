// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/healpix_mapping.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <sstream>

#include "halcyon/base/error.h"

namespace halcyon::state {
namespace {

constexpr const char* kOperation = "read_fields";
constexpr const char* kIndexName = "healpix_index";  // the standard name of pixel numbers

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

// The mapping variable that a variable names, be it alone ("crs") or with the coordinates that
// belong to it ("crs: cell other: lat lon").
std::optional<std::string> mapping_of(const NetcdfReader& file, const std::string& variable) {
  const auto named = words(file.text(variable, "grid_mapping").value_or(""));
  for (std::string word : named) {
    if (word.ends_with(':')) word.pop_back();
    if (file.has(word) && file.text(word, "grid_mapping_name") == "healpix") return word;
  }
  return std::nullopt;
}

std::optional<int64_t> whole_number(const NetcdfReader& file, const std::string& variable,
                                    const char* attribute) {
  const auto numbers = file.numbers(variable, attribute);
  if (!numbers) return std::nullopt;
  HALCYON_CHECK_KIND(numbers->size() == 1 && std::abs((*numbers)[0]) <= (int64_t{1} << 30) &&
                         (*numbers)[0] == std::floor((*numbers)[0]),
                     input, kOperation, "{}: expected {} of {} to be one whole number",
                     file.path().string(), attribute, variable);
  return static_cast<int64_t>((*numbers)[0]);
}

// From any of the attributes that tell it; they must agree.
int level_of(const NetcdfReader& file, const std::string& variable) {
  std::optional<int64_t> level;
  std::string by;
  const auto take = [&](std::optional<int64_t> found, const char* attribute) {
    HALCYON_CHECK_KIND(!found || !level || *found == *level, input, kOperation,
                       "{}: expected one level, got {} by {} and {} by {} of {}",
                       file.path().string(), *level, by, *found, attribute, variable);
    if (found) by = attribute;
    if (found) level = found;
  };
  take(whole_number(file, variable, "refinement_level"), "refinement_level");
  take(whole_number(file, variable, "healpix_level"), "healpix_level");
  if (const auto nside = whole_number(file, variable, "healpix_nside")) {
    HALCYON_CHECK_KIND(*nside > 0 && std::has_single_bit(static_cast<uint64_t>(*nside)), input,
                       kOperation, "{}: expected healpix_nside of {} to be a power of two, got {}",
                       file.path().string(), variable, *nside);
    take(std::countr_zero(static_cast<uint64_t>(*nside)), "healpix_nside");
  }
  HALCYON_CHECK_KIND(level.has_value(), input, kOperation,
                     "{}: expected refinement_level of the grid mapping {}", file.path().string(),
                     variable);
  HALCYON_CHECK_KIND(*level >= 0 && *level <= healpix::kMaxLevel, input, kOperation,
                     "{}: expected a refinement_level 0 to 29 of {}, got {}", file.path().string(),
                     variable, *level);
  return static_cast<int>(*level);
}

healpix::Order order_named(const NetcdfReader& file, const std::string& variable,
                           const char* attribute, const std::string& name) {
  if (name == "nested" || name == "nest") return healpix::Order::nest;
  if (name == "ring") return healpix::Order::ring;
  if (name == "pad_xy" && std::string(attribute) == "healpix_order") return healpix::Order::pad_xy;
  throw_error(ErrorKind::input, kOperation,
              fmt::format("{}: expected {} of {} to be nested or ring, got \"{}\"",
                          file.path().string(), attribute, variable, name));
}

healpix::Order order_of(const NetcdfReader& file, const std::string& variable) {
  std::optional<healpix::Order> order;
  for (const char* attribute : {"indexing_scheme", "healpix_order"}) {
    const auto name = file.text(variable, attribute);
    if (!name) continue;
    const auto found = order_named(file, variable, attribute, *name);
    HALCYON_CHECK_KIND(!order || *order == found, input, kOperation,
                       "{}: expected one order, got an indexing_scheme and a healpix_order of {} "
                       "that differ",
                       file.path().string(), variable);
    order = found;
  }
  HALCYON_CHECK_KIND(order.has_value(), input, kOperation,
                     "{}: expected indexing_scheme (nested or ring) of the grid mapping {}",
                     file.path().string(), variable);
  return *order;
}

bool is_whole(const NetcdfVariable& variable) {
  return variable.kind == NetcdfKind::number &&
         c10::isIntegralType(variable.dtype, /*includeBool=*/false);
}

// Where a dimension stands among a variable's; -1 when it is none of them.
int64_t place_of(const NetcdfVariable& variable, const std::string& dimension) {
  const auto& names = variable.dimensions;
  const auto found = std::find(names.begin(), names.end(), dimension);
  return found == names.end() ? -1 : found - names.begin();
}

// A coordinate of the standard name.
bool find_named_index(const NetcdfReader& file, const NetcdfVariable& variable,
                      HealpixMapping& mapping) {
  for (const auto& one : file.variables()) {
    if (file.text(one.name, "standard_name") != kIndexName || one.dimensions.size() != 1) continue;
    const int64_t axis = place_of(variable, one.dimensions[0]);
    if (axis < 0) continue;
    HALCYON_CHECK_KIND(is_whole(one), input, kOperation,
                       "{}: expected whole numbers of pixels in {}", file.path().string(),
                       one.name);
    mapping.axis = axis;
    mapping.index = one.name;
    return true;
  }
  return false;
}

// Without the standard name: a dimension of all pixels, or one whose coordinate names the mapping
// too. Whole numbers of the dimension's own name number the pixels, else they stand in order.
bool find_plain_axis(const NetcdfReader& file, const NetcdfVariable& variable,
                     const std::string& name, HealpixMapping& mapping) {
  std::vector<HealpixMapping> candidates;
  for (std::size_t d = 0; d < variable.dimensions.size(); ++d) {
    const std::string& dimension = variable.dimensions[d];
    const bool all = variable.shape[d] == healpix::npix(mapping.level);
    HealpixMapping one = mapping;
    one.axis = static_cast<int64_t>(d);
    if (!file.has(dimension)) {
      if (all) candidates.push_back(one);
      continue;
    }
    one.index = dimension;
    const auto& coordinate = file.variable(dimension);
    const bool usable =
        is_whole(coordinate) && coordinate.dimensions.size() == 1 &&
        !file.text(dimension, "axis") &&
        file.text(dimension, "units").value_or("").find(" since ") == std::string::npos;
    if (usable && (all || mapping_of(file, dimension) == name)) candidates.push_back(one);
  }
  HALCYON_CHECK_KIND(candidates.size() < 2, input, kOperation,
                     "{}: expected one dimension of {} to be pixels, got several of {} entries; "
                     "give the pixels a coordinate with the standard_name healpix_index",
                     file.path().string(), variable.name, healpix::npix(mapping.level));
  if (candidates.empty()) return false;
  mapping = candidates[0];
  return true;
}

}  // namespace

at::Tensor define_healpix(NetcdfWriter& file, const Region& region) {
  const int level = region.level();
  const auto nested =
      healpix::convert(level, region.pixels(), healpix::Order::pad_xy, healpix::Order::nest);
  const auto [numbers, places] = nested.sort();
  // 32 bits reach up to level 13, and more tools know them
  const auto dtype = healpix::npix(level) <= (int64_t{1} << 31) ? at::kInt : at::kLong;
  file.variable(kHealpixMapping, at::kInt, {});
  file.attribute(kHealpixMapping, "grid_mapping_name", "healpix");
  file.attribute(kHealpixMapping, "indexing_scheme", "nested");
  file.attribute(kHealpixMapping, "refinement_level", std::vector<int32_t>{level});
  // what tools looked for before CF-1.13
  file.attribute(kHealpixMapping, "healpix_nside", std::vector<int32_t>{1 << level});
  file.attribute(kHealpixMapping, "healpix_order", "nest");
  file.write(kHealpixMapping, at::zeros({}, at::kInt));

  file.dimension(kPixelDimension, region.size());
  file.variable(kPixelDimension, dtype, {kPixelDimension});
  file.attribute(kPixelDimension, "standard_name", kIndexName);
  file.attribute(kPixelDimension, "long_name", "HEALPix pixel number, nested order");
  file.attribute(kPixelDimension, "units", "1");
  file.write(kPixelDimension, numbers.to(dtype));

  const auto [lon, lat] = healpix::pix2ang(level, numbers, healpix::Order::nest);
  for (const bool latitude : {true, false}) {
    const std::string name = latitude ? "lat" : "lon", full = latitude ? "latitude" : "longitude";
    file.variable(name, at::kDouble, {kPixelDimension});
    file.attribute(name, "standard_name", full);
    file.attribute(name, "long_name", full + " of the pixel's centre");
    file.attribute(name, "units", latitude ? "degrees_north" : "degrees_east");
    file.write(name, latitude ? lat : lon);
  }
  return places;
}

std::optional<HealpixMapping> healpix_mapping(const NetcdfReader& file,
                                              const std::string& variable) {
  const NetcdfVariable& info = file.variable(variable);
  if (const auto name = mapping_of(file, variable)) {
    HealpixMapping mapping{level_of(file, *name), order_of(file, *name), 0, {}};
    const bool found =
        find_named_index(file, info, mapping) || find_plain_axis(file, info, *name, mapping);
    HALCYON_CHECK_KIND(found, input, kOperation,
                       "{}: expected a coordinate of {} with the standard_name healpix_index, or a "
                       "dimension of all {} pixels of level {}",
                       file.path().string(), variable, healpix::npix(mapping.level), mapping.level);
    return mapping;
  }
  // our own older files: the coordinate itself tells
  for (std::size_t d = 0; d < info.dimensions.size(); ++d) {
    const std::string& name = info.dimensions[d];
    if (file.has(name) && file.numbers(name, "healpix_level"))
      return HealpixMapping{level_of(file, name), order_of(file, name), static_cast<int64_t>(d),
                            name};
  }
  return std::nullopt;
}

HealpixPixels read_healpix(const NetcdfReader& file, const HealpixMapping& mapping, int64_t size) {
  const auto numbers =
      mapping.index.empty() ? at::arange(size, at::kLong) : file.read(mapping.index).to(at::kLong);
  try {
    const auto padxy =
        healpix::convert(mapping.level, numbers, mapping.order, healpix::Order::pad_xy);
    auto [sorted, places] = padxy.sort();
    return {Region::of_pixels(mapping.level, sorted), places};
  } catch (const Error& error) {
    throw Error(ErrorKind::input, file.path().string() + ": " + error.what());
  }
}

bool is_healpix_index(const NetcdfReader& file, const std::string& variable) {
  return file.text(variable, "standard_name") == kIndexName ||
         file.numbers(variable, "healpix_level").has_value();
}

}  // namespace halcyon::state
