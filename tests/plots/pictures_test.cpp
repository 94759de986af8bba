// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/plots/graph.h"
#include "halcyon/plots/graphs.h"
#include "halcyon/plots/map.h"
#include "tests/support/paths.h"

namespace halcyon::plots {
namespace {

using test::TemporaryFolder;

// Width and height of a PNG with something on it: zlib makes a blank page of this size much
// smaller.
std::pair<int, int> picture(const std::filesystem::path& path, std::size_t least = 10000) {
  const std::string bytes = read_text(path);
  EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
  EXPECT_GT(bytes.size(), least) << path;
  if (bytes.size() < 24) return {0, 0};
  const auto number = [&](std::size_t at) {
    int value = 0;
    for (std::size_t i = at; i < at + 4; ++i)
      value = value * 256 + static_cast<unsigned char>(bytes[i]);
    return value;
  };
  return {number(16), number(20)};
}

MapPlot america() {
  std::vector<double> lat, lon, values;
  for (double y = 75; y >= 15; y -= 2.5) lat.push_back(y);
  for (double x = 200; x <= 330; x += 2.5) lon.push_back(x);
  for (const double y : lat)
    for (const double x : lon) values.push_back(28 - 0.012 * y * y + 6 * std::sin(x / 12));
  MapPlot plot;
  plot.title = "2 m temperature: analysis & stations <26>";
  plot.subtitle = "2014-07-04 12 UTC";
  plot.units = "\u00b0C";
  plot.grid = LatLonGrid(lat, lon);
  plot.field = at::tensor(values, at::kDouble);
  plot.stations = {{-100, 40, 21.5}, {-80, 30, 25}, {-122, 47, std::nan("")}};
  return plot;
}

TEST(PlotMap, AnalysisWithStations) {
  const TemporaryFolder folder;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  plot_map(folder / "a.png", america());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  const auto [width, height] = picture(folder / "a.png", 60000);
  EXPECT_EQ(width, 1435);
  EXPECT_GT(height, 600);
  // nothing but the picture is left
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(PlotMap, ShadesTheFieldRatherThanAnything) {
  const TemporaryFolder folder;
  MapPlot plot = america();
  plot_map(folder / "a.png", plot);
  plot_map(folder / "again.png", plot);
  EXPECT_EQ(sha256_of_file(folder / "a.png"), sha256_of_file(folder / "again.png"));
  plot.field = plot.field + 3;
  plot_map(folder / "warmer.png", plot);
  EXPECT_NE(sha256_of_file(folder / "a.png"), sha256_of_file(folder / "warmer.png"));
  plot.palette = Palette::difference;
  plot_map(folder / "difference.png", plot);
  EXPECT_NE(sha256_of_file(folder / "warmer.png"), sha256_of_file(folder / "difference.png"));
}

TEST(PlotMap, BadFieldsMakePicturesAllTheSame) {
  const TemporaryFolder folder;
  const auto draws = [&](const char* name, auto&& spoil) {
    MapPlot plot = america();
    spoil(plot);
    plot_map(folder / "x.png", plot);
    EXPECT_GT(picture(folder / "x.png", 10000).first, 0) << name;
  };
  draws("some NaN", [](MapPlot& p) { p.field.narrow(0, 100, 300).fill_(std::nan("")); });
  draws("all NaN", [](MapPlot& p) { p.field.fill_(std::nan("")); });
  draws("infinite", [](MapPlot& p) { p.field[7] = std::numeric_limits<double>::infinity(); });
  draws("constant", [](MapPlot& p) { p.field.fill_(0); });
  draws("huge", [](MapPlot& p) { p.field = p.field * 1e30; });
  draws("tiny", [](MapPlot& p) { p.field = p.field * 1e-30; });
  draws("one point", [](MapPlot& p) {
    p.grid = LatLonGrid({50}, {10});
    p.field = at::ones({1}, at::kDouble);
  });
  draws("one pixel", [](MapPlot& p) {
    p.grid = Region::of_pixels(6, std::vector<int64_t>{1234});
    p.field = at::ones({1}, at::kFloat);
  });
  draws("stations alone", [](MapPlot& p) {
    p.grid.reset();
    p.field = at::Tensor();
  });
  draws("no title", [](MapPlot& p) { p.title = p.subtitle = p.units = ""; });
  draws("odd text", [](MapPlot& p) { p.title = std::string("<b>&\n\t</font> \"'%d\\") + '\x01'; });
  draws("many stations", [](MapPlot& p) {
    for (int i = 0; i < 300; ++i) p.stations.push_back({-130.0 + 0.2 * i, 20 + 0.1 * i, 0.1 * i});
  });
}

TEST(PlotMap, AllKindsOfGridsAndAreas) {
  const TemporaryFolder folder;
  const auto draws = [&](Grid grid, std::optional<Box> area) {
    MapPlot plot;
    plot.title = "any";
    plot.palette = Palette::plain;
    plot.field = at::arange(size_of(grid), at::kDouble);
    plot.grid = std::move(grid);
    plot.area = area;
    plot_map(folder / "g.png", plot);
    picture(folder / "g.png");
  };
  draws(LatLonGrid::regular(19, 36), std::nullopt);
  draws(LatLonGrid::gaussian(8), std::nullopt);
  draws(Region::global(3), std::nullopt);
  draws(Region::touching(4, {-10, 30, 35, 65}), std::nullopt);
  draws(Region::touching(4, {100, 160, -50, -20}), std::nullopt);
  draws(Region::touching(4, {170, -170, -20, 20}), std::nullopt);  // the date line
  draws(Region::global(3), Box{0, 360, 60, 90});
  draws(Region::global(3), Box{-20, 40, -30, 30});
}

TEST(PlotMap, RefusesWhatCannotBeShown) {
  const TemporaryFolder folder;
  const auto refused = [&](auto&& spoil, ErrorKind kind) {
    MapPlot plot = america();
    spoil(plot);
    try {
      plot_map(folder / "x.png", plot);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  };
  refused([](MapPlot& p) { p.field = p.field.narrow(0, 0, 10); }, ErrorKind::argument);
  refused([](MapPlot& p) { p.stations[0].lat = 91; }, ErrorKind::argument);
  refused([](MapPlot& p) { p.stations[0].lon = std::nan(""); }, ErrorKind::argument);
  refused([](MapPlot& p) { p.range = {3, 1}; }, ErrorKind::argument);
  refused([](MapPlot& p) { p.area = Box{0, 10, 40, 30}; }, ErrorKind::argument);
  MapPlot nothing;
  EXPECT_THROW(plot_map(folder / "x.png", nothing), Error);
  EXPECT_THROW(plot_map(folder / "x.jpg", america()), Error);
  EXPECT_THROW(plot_map(folder / "none" / "x.png", america()), Error);
}

TEST(PlotGraphs, SeriesWithGaps) {
  const TemporaryFolder folder;
  TimeSeries observed{"observed", {}, {}, true}, analysis{"analysis", {}, {}};
  for (int t = 0; t < 40; ++t) {
    observed.times.push_back(1404172800 + t * 21600);
    observed.values.push_back(t % 7 == 0 ? std::nan("") : 290 + 5 * std::sin(0.5 * t));
  }
  analysis.times = observed.times;
  analysis.values = observed.values;
  analysis.values[3] = std::nan("");
  plot_series(folder / "s.png", {"A city & more", "July", "K", {observed, analysis}});
  EXPECT_EQ(picture(folder / "s.png"), (std::pair{1300, 650}));
  // one value, one time
  plot_series(folder / "s.png", {"t", "", "K", {{"one", {0}, {3.5}, false}}});
  picture(folder / "s.png", 5000);
  EXPECT_THROW(plot_series(folder / "s.png", {"t", "", "K", {}}), Error);
  EXPECT_THROW(plot_series(folder / "s.png", {"t", "", "K", {{"a", {0, 1}, {1}, false}}}), Error);
  EXPECT_THROW(plot_series(folder / "s.png", {"t", "", "K", {{"a", {1, 0}, {1, 2}, false}}}),
               Error);
  EXPECT_THROW(plot_series(folder / "s.png", {"t", "", "K", {{"a", {0}, {std::nan("")}, false}}}),
               Error);
}

TEST(PlotGraphs, LossCurvesOfALog) {
  const TemporaryFolder folder;
  std::string csv = "step,loss,validation_loss,learning_rate\n";
  for (int step = 0; step < 500; step += 5)
    csv += fmt::format("{},{},{},1e-3\n", step, 0.02 + std::exp(-step / 60.0),
                       step % 50 == 0 ? std::to_string(0.03 + std::exp(-step / 70.0)) : "");
  write_text(folder / "log.csv", csv);
  const CurvesPlot plot = curves_of_log(folder / "log.csv");
  ASSERT_EQ(plot.curves.size(), 2u);
  EXPECT_EQ(plot.curves[0].x.size(), 100u);
  EXPECT_EQ(plot.curves[1].x.size(), 10u);
  EXPECT_EQ(plot.x_title, "step");
  plot_curves(folder / "l.png", plot);
  EXPECT_EQ(picture(folder / "l.png").first, 1300);
  EXPECT_EQ(curves_of_log(folder / "log.csv", {"learning_rate"}).curves[0].name, "learning_rate");
  write_text(folder / "log.csv", "a,b\n1,2\n");
  EXPECT_THROW(curves_of_log(folder / "log.csv"), Error);
  EXPECT_THROW(plot_curves(folder / "l.png", {"", "", "", "", {{"a", {1, 2}, {1, -1}}}, true}),
               Error);
}

TEST(PlotGraphs, ScoreBars) {
  const TemporaryFolder folder;
  verify::ScoreTable table;
  for (const char* protocol : {"real", "simulated"})
    for (const char* analyser : {"climatology", "optimal interpolation", "network"}) {
      verify::ScoreRow row;
      row.protocol = protocol;
      row.analyser = analyser;
      row.units = "K";
      row.score = {2.0, 1.8, 2.3};
      table.rows.push_back(row);
    }
  plot_scores(folder / "b.png", table, "Scores");
  EXPECT_EQ(picture(folder / "b.png").second, 650);
  EXPECT_THROW(plot_scores(folder / "b.png", {}, "none"), Error);
}

TEST(PlotGraphs, ThreadsTakeTurns) {
  const TemporaryFolder folder;
  const CurvesPlot plot{"t", "", "x", "y", {{"a", {1, 2, 3}, {1, 5, 2}}}};
  plot_curves(folder / "alone.png", plot);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] { plot_curves(folder / (std::to_string(i) + ".png"), plot); });
  for (auto& thread : threads) thread.join();
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(sha256_of_file(folder / (std::to_string(i) + ".png")),
              sha256_of_file(folder / "alone.png"));
}

TEST(GraphAxis, RoundTicksWithPlainLabels) {
  const GraphAxis axis = number_axis("", 0.03, 0.97);
  EXPECT_EQ(axis.labels.front(), "0.0");
  EXPECT_EQ(axis.labels.back(), "1.0");
  EXPECT_EQ(tick_label(2.5, 2.5), "2.5");
  EXPECT_EQ(tick_label(0.25, 0.25), "0.25");
  EXPECT_EQ(tick_label(-40, 20), "-40");
  EXPECT_EQ(tick_label(3e7, 1e7), "3e+07");
  const GraphAxis logarithm = logarithm_axis("", 0.03, 3);
  EXPECT_EQ(logarithm.labels,
            (std::vector<std::string>{"0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"}));
  EXPECT_EQ(logarithm_axis("", 1, 1).labels, (std::vector<std::string>{"1", "2"}));
}

TEST(GraphAxis, TimesAtRoundMoments) {
  // 2014-07-01 00 UTC is day 16252
  const GraphAxis days = time_axis(16252, 16262);
  EXPECT_EQ(days.labels.front(), "1 Jul 2014");
  EXPECT_EQ(days.labels[1], "2 Jul");
  const GraphAxis hours = time_axis(16252, 16252.6);
  EXPECT_EQ(hours.labels[1], "03 h 1 Jul");
  const GraphAxis months = time_axis(16252, 16252 + 365);
  EXPECT_EQ(months.labels.front(), "Jul 2014");
  EXPECT_EQ(months.labels.back(), "Jul");
  EXPECT_FALSE(time_axis(5.123, 5.123).ticks.empty());
}

}  // namespace
}  // namespace halcyon::plots
