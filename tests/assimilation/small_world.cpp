// SPDX-License-Identifier: Apache-2.0
#include "tests/assimilation/small_world.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>
#include <numbers>

#include "halcyon/base/files.h"
#include "halcyon/base/time.h"
#include "halcyon/model/checkpoint.h"
#include "halcyon/state/write_fields.h"

namespace halcyon::test {

namespace {

struct City {
  const char* name;
  double lat, lon;
};
constexpr City kCities[] = {{"Alba", 47.3, -117.5},
                            {"Bern", 41.0, -108.2},
                            {"Cork", 36.6, -99.0},
                            {"Dover", 30.1, -112.4},
                            {"Essen", 27.8, -88.3}};

void write_cities(const state::Fields& truth, const std::filesystem::path& folder) {
  std::string stations = "station,lat,lon\n", reports = "datetime";
  std::vector<double> lat, lon;
  for (const auto& city : kCities) {
    stations += fmt::format("{},{},{}\n", city.name, city.lat, city.lon);
    reports += fmt::format(",{}", city.name);
    lat.push_back(city.lat);
    lon.push_back(city.lon);
  }
  const auto h = bilinear_to_points(std::get<LatLonGrid>(truth.grid), at::tensor(lon, at::kDouble),
                                    at::tensor(lat, at::kDouble));
  const auto at_cities = h.apply(truth.data.select(1, 0));
  for (std::size_t t = 0; t < truth.times.size(); ++t) {
    if (truth.times[t] < parse_time("2014-01-01")) continue;
    reports += "\n" + format_time(truth.times[t]);
    for (std::size_t c = 0; c < std::size(kCities); ++c) {
      const double error = 0.5 * std::sin(1.7 * static_cast<double>(t) + static_cast<double>(c));
      const auto row = static_cast<int64_t>(t), column = static_cast<int64_t>(c);
      reports += fmt::format(",{:.2f}", at_cities[row][column].item<double>() + error);
    }
  }
  write_text(folder / "city_stations.csv", stations);
  write_text(folder / "city_t2m.csv", reports + "\n");
}

}  // namespace

state::Fields small_truth() {
  state::Fields fields{
      {{"air", "air_temperature", "air temperature", "K"}},
      LatLonGrid({50, 45, 40, 35, 30, 25}, {240, 245, 250, 255, 260, 265, 270, 275}),
      {},
      {}};
  for (int64_t t = parse_time("2013-01-01"); t < parse_time("2014-04-01"); t += 21600)
    fields.times.push_back(t);
  fields.data = at::empty({static_cast<int64_t>(fields.times.size()), 1, 48});
  float* out = fields.data.mutable_data_ptr<float>();
  for (const int64_t time : fields.times) {
    const double day = static_cast<double>(time) / 86400;
    const double season = -10 * std::cos(2 * std::numbers::pi * day / 365.25);
    for (int x = 0; x < 48; ++x) {
      const double row = x / 8, column = x % 8;  // NOLINT: whole rows
      *out++ = static_cast<float>(280 + season + 2 * row +
                                  4 * std::sin(0.5 * column + 0.3 * row - 1.1 * day) +
                                  2 * std::cos(0.9 * column - 0.6 * row - 0.37 * day));
    }
  }
  return fields;
}

std::string SmallWorld::model() {
  return "model: {hidden_size: 16, num_layers: 1, num_heads: 2, mlp_ratio: 2, obs_token_dim: 8, "
         "obs_film_hidden_dim: 8, pixel_attn_head_dim: 8}\n";
}

void write_random_weights(const assimilation::RegionalSystem& system,
                          const std::filesystem::path& path) {
  torch::manual_seed(7);
  const auto run = config::parse(SmallWorld::model(), "model.yaml", "/");
  HealDA model(assimilation::regional_config(system, run.section("model")));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model->parameters()) parameter.add_(0.1 * torch::randn_like(parameter));
  save_checkpoint(model, path);
}

SmallWorld::SmallWorld() {
  const auto truth = small_truth();
  state::write_fields(file("air.nc"), truth);
  write_cities(truth, folder());
  write_text(file("system.yaml"),
             "name: small world\n"
             "variable: air\n"
             "fields: air.nc\n"
             "token_level: 2\n"
             "pixel_level: 4\n"
             "ages: [0h, 6h]\n"
             "split:\n"
             "  training: [{start: 2013-01-01, end: 2014-01-01}]\n"
             "  evaluation: [{start: 2014-01-01, end: 2014-04-01}]\n");
  write_random_weights(system(), file("weights.safetensors"));
}

assimilation::RegionalSystem SmallWorld::system(const std::vector<std::string>& overrides) const {
  const auto node = config::load(file("system.yaml"), overrides);
  auto system = assimilation::RegionalSystem::from_config(node);
  node.finish();
  return system;
}

}  // namespace halcyon::test
