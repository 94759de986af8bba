// SPDX-License-Identifier: Apache-2.0
// The shipped network on the shipped fields.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "halcyon/assimilation/regional_analyser.h"
#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/model/checkpoint.h"
#include "halcyon/training/random.h"
#include "tests/assimilation/small_world.h"
#include "tests/support/compare.h"

namespace halcyon::assimilation {
namespace {

using test::near;

// Sums of other batch sizes and orders round otherwise.
constexpr double kRounding = 1e-4;

struct NorthAmerica {
  std::shared_ptr<const RegionalSystem> system;
  std::vector<int64_t> times;
  at::Tensor anomalies;  // of the evaluation times

  static const NorthAmerica& get() {
    static const NorthAmerica demo = [] {
      const auto folder = test::source_dir() / "demo/north_america";
      NorthAmerica d;
      d.system = std::make_shared<RegionalSystem>(
          RegionalSystem::from_config(config::load(folder / "system.yaml")));
      d.anomalies = d.system->anomalies(state::Purpose::evaluation, d.times);
      return d;
    }();
    return demo;
  }
  static HealDA weights() {
    return load_checkpoint(test::source_dir() / "demo/north_america/weights.safetensors");
  }
  int64_t row_of(int64_t time) const {
    return std::lower_bound(times.begin(), times.end(), time) - times.begin();
  }
  // Random sites that report the anomalies without error at all ages.
  DepartureSet perfect(int64_t time, int64_t sites) const {
    DepartureSet set{time, {}};
    training::Random random(6);
    for (int64_t i = 0; i < sites; ++i) {
      const double lat = random.uniform(18, 72), lon = random.uniform(203, 327);
      const auto h = bilinear_to_points(system->grid, at::tensor({lon}, at::kDouble),
                                        at::tensor({lat}, at::kDouble));
      const auto spread = h.apply(system->spread).item<float>();
      for (const int64_t age : system->ages) {
        const auto value = h.apply(anomalies[row_of(time - age)]).item<float>();
        set.observations.push_back({lat, lon, value, 0.4f, spread, static_cast<float>(age) / 3600});
      }
    }
    return set;
  }
};

TEST(RegionalModel, NoObservationGivesAFiniteAnalysis) {
  const auto& demo = NorthAmerica::get();
  RegionalModel model(*demo.system, NorthAmerica::weights());
  const auto analysis = model.analyse({{parse_time("2014-01-15"), {}}});
  ASSERT_EQ(analysis.sizes(), (std::vector<int64_t>{1, demo.system->grid.size()}));
  EXPECT_TRUE(analysis.isfinite().all().item<bool>());
  // near climatology: it knows no more
  EXPECT_LT(analysis.square().mean().sqrt().item<float>(), 1.5f);
  EXPECT_EQ(model.analyse({}).size(0), 0);
}

TEST(RegionalModel, ADensePerfectNetworkBeatsClimatology) {
  const auto& demo = NorthAmerica::get();
  RegionalModel model(*demo.system, NorthAmerica::weights());
  std::vector<DepartureSet> batch;
  std::vector<at::Tensor> truth;
  for (const char* day : {"2014-01-10T06", "2014-04-20T12", "2014-07-15T18", "2014-10-30T00"}) {
    batch.push_back(demo.perfect(parse_time(day), 200));
    truth.push_back(demo.anomalies[demo.row_of(batch.back().time)]);
  }
  const auto analysis = model.analyse(batch), expected = at::stack(truth);
  for (int64_t t = 0; t < 4; ++t) {
    const double error = (analysis[t] - expected[t]).square().mean().sqrt().item<double>(),
                 climatology = expected[t].square().mean().sqrt().item<double>();
    EXPECT_LT(error, 0.6 * climatology) << t;
  }
}

TEST(RegionalModel, OrderAndCompanyOfObservationsDoNotMatter) {
  const auto& demo = NorthAmerica::get();
  RegionalModel model(*demo.system, NorthAmerica::weights());
  const auto a = demo.perfect(parse_time("2014-02-01T12"), 30),
             b = demo.perfect(parse_time("2014-08-01T00"), 12);
  auto turned = a;
  std::reverse(turned.observations.begin(), turned.observations.end());
  const auto together = model.analyse({a, b, turned});
  EXPECT_TRUE(near(together[2], together[0], kRounding));
  EXPECT_TRUE(near(model.analyse({a, b, turned}, /*chunk=*/1), together, kRounding));
  EXPECT_TRUE(near(model.analyse({b})[0], together[1], kRounding));
  EXPECT_FALSE(together[0].equal(together[1]));
  EXPECT_TRUE(test::identical(model.analyse({a, b, turned}), together));  // a rerun
}

TEST(RegionalModel, GridAndPixelsAgree) {
  const auto& demo = NorthAmerica::get();
  RegionalModel model(*demo.system, NorthAmerica::weights());
  const std::vector<DepartureSet> batch{demo.perfect(parse_time("2014-05-05T00"), 20)};
  const auto pixels = model.analyse_pixels(batch);
  EXPECT_EQ(pixels.size(1), demo.system->pixels.size());
  EXPECT_TRUE(test::identical(demo.system->to_grid.apply(pixels), model.analyse(batch)));
  EXPECT_TRUE(near(model.forward(batch).detach(), model.analyse(batch), kRounding));
}

// A station on the border of a face counts as one beside it does: on meridian -90 north of 41.8 N,
// and on the slanting borders that lead from there to the equator.
TEST(RegionalModel, StationsOnBordersOfFaces) {
  const auto& demo = NorthAmerica::get();
  RegionalModel model(*demo.system, NorthAmerica::weights());
  struct Place {
    double lat, lon;
  };
  std::vector<Place> places;
  for (const double lat : {43.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0}) places.push_back({lat, -90});
  for (const double lat : {16.0, 20.0, 25.0, 30.0, 35.0, 40.0, 41.8}) {
    const double slope = 45 * 1.5 * std::sin(lat * M_PI / 180);
    for (const double lon : {225 + slope, 315 - slope, slope - 135, -45 - slope})
      places.push_back({lat, lon});
  }
  const auto one = [](double lat, double lon) {
    return DepartureSet{parse_time("2014-11-10"), {{lat, lon, 8, 1, 6, 0}}};
  };
  std::vector<DepartureSet> batch;
  for (const auto& [lat, lon] : places) {
    for (const double east : {0.0, 0.001, -0.001}) batch.push_back(one(lat, lon + east));
  }
  const auto analyses = model.analyse(batch);
  const auto nothing = model.analyse({{batch[0].time, {}}})[0];
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto row = 3 * static_cast<int64_t>(i);
    const auto apart = [&](int64_t side) {
      return (analyses[row] - analyses[row + side]).abs().max().item<double>();
    };
    SCOPED_TRACE(fmt::format("{} N {} E", places[i].lat, places[i].lon));
    EXPECT_GT((analyses[row] - nothing).abs().max().item<double>(), 0.3);  // it counts
    // a meridian belongs to its eastern side; of a slanting border rounding decides
    EXPECT_LT(places[i].lon == -90 ? apart(1) : std::min(apart(1), apart(2)), 0.02);
  }
}

TEST(RegionalModel, RefusesTheNetworkOfAnotherSystem) {
  const test::SmallWorld small;
  try {
    RegionalModel(small.system(), NorthAmerica::weights());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::configuration);
    EXPECT_NE(std::string(e.what()).find("small world"), std::string::npos) << e.what();
  }
}

verify::Network network_of(const std::vector<double>& lat, const std::vector<double>& lon) {
  verify::Network network;
  for (std::size_t i = 0; i < lat.size(); ++i) network.stations.push_back(fmt::format("s{}", i));
  network.lat = at::tensor(lat, at::kDouble);
  network.lon = at::tensor(lon, at::kDouble);
  network.error_variance = at::full({static_cast<int64_t>(lat.size())}, 1.0, at::kDouble);
  return network;
}

TEST(RegionalAnalyser, IsTheModelAroundTheClimatology) {
  const auto& demo = NorthAmerica::get();
  RegionalAnalyser analyser(demo.system, NorthAmerica::weights());
  EXPECT_EQ(analyser.lags(), demo.system->ages);
  const auto network = network_of({40, 50, 35}, {260, 250, -85});
  const std::vector<int64_t> times{parse_time("2014-03-01T00"), parse_time("2014-03-01T06")};
  auto values = at::full({2, 4, 3}, std::nan(""), at::kDouble);
  const auto nothing = analyser.analyse(network, values, times);
  RegionalModel model(*demo.system, NorthAmerica::weights());
  const auto climatology = demo.system->climatology.at(times).select(1, 0);
  const auto departure = model.analyse({{times[0], {}}, {times[1], {}}});
  EXPECT_TRUE(near(nothing, climatology + departure, 1e-6));

  // a warm report warms the place; what is missing is as if the station were not there
  const auto h = bilinear_to_points(demo.system->grid, network.lon, network.lat);
  for (int64_t t = 0; t < 2; ++t)
    values[t][0][0] = h.apply(demo.system->climatology.at(times[t])[0])[0].item<double>() + 8;
  const auto warm = analyser.analyse(network, values, times);
  const auto change = h.apply(warm - nothing);
  EXPECT_GT(change.select(1, 0).min().item<double>(), 2);
  const auto alone =
      analyser.analyse(network_of({40}, {260}), values.slice(2, 0, 1).contiguous(), times);
  EXPECT_TRUE(near(alone, warm, 1e-6));
  EXPECT_THROW(analyser.analyse(network, values.slice(1, 0, 2), times), Error);
}

}  // namespace
}  // namespace halcyon::assimilation
