// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/grid_record.h"

#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include "halcyon/base/error.h"

namespace halcyon::state {
namespace {

std::vector<double> doubles(const TensorFile& file, const std::string& tensor,
                            std::string_view name) {
  const at::Tensor& values = file.at(tensor);
  HALCYON_CHECK_KIND(values.scalar_type() == at::kDouble && values.dim() == 1, input, "grid",
                     "{}: expected {} of float64 and rank 1", name, tensor);
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

}  // namespace

std::string record_of(const std::vector<Variable>& variables) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& variable : variables)
    list.push_back({{"name", variable.name},
                    {"standard_name", variable.standard_name},
                    {"long_name", variable.long_name},
                    {"units", variable.units}});
  return list.dump();
}

std::vector<Variable> variables_of(const TensorFile& file, std::string_view name) {
  const auto found = file.metadata.find("variables");
  HALCYON_CHECK_KIND(found != file.metadata.end(), input, "variables",
                     "{}: expected a list of variables", name);
  try {
    std::vector<Variable> variables;
    for (const auto& one : nlohmann::json::parse(found->second))
      variables.push_back(
          {one.at("name"), one.at("standard_name"), one.at("long_name"), one.at("units")});
    return variables;
  } catch (const nlohmann::json::exception& error) {
    throw_error(ErrorKind::input, "variables",
                fmt::format("{}: expected a list of variables, got {}", name, error.what()));
  }
}

void put_grid(TensorFile& file, const Grid& grid) {
  if (const auto* latlon = std::get_if<LatLonGrid>(&grid)) {
    file.tensors["grid.lat"] = at::tensor(latlon->lat(), at::kDouble);
    file.tensors["grid.lon"] = at::tensor(latlon->lon(), at::kDouble);
  } else {
    const auto& region = std::get<Region>(grid);
    file.tensors["grid.level"] = at::tensor(std::vector<int64_t>{region.level()}, at::kLong);
    file.tensors["grid.pixels"] = region.pixels();
  }
}

Grid get_grid(const TensorFile& file, std::string_view name) {
  try {
    if (file.tensors.contains("grid.lat"))
      return LatLonGrid(doubles(file, "grid.lat", name), doubles(file, "grid.lon", name));
    const at::Tensor &level = file.at("grid.level"), &pixels = file.at("grid.pixels");
    HALCYON_CHECK(level.scalar_type() == at::kLong && level.numel() == 1 &&
                      pixels.scalar_type() == at::kLong && pixels.dim() == 1,
                  "grid", "expected int64 pixels of one level");
    const int64_t number = level.item<int64_t>();
    HALCYON_CHECK(number >= 0 && number <= 29, "grid", "expected a level 0 to 29, got {}", number);
    return Region::of_pixels(static_cast<int>(number), pixels);
  } catch (const Error& error) {
    throw Error(ErrorKind::input, fmt::format("{}: {}", name, error.what()));
  }
}

}  // namespace halcyon::state
