// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdlib>

#include "halcyon/base/files.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/state/write_fields.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::TemporaryFolder;

int plot(const std::string& arguments) {
  const auto program = (test::binary_dir() / "bin/halcyon").string();
  const int status =
      std::system(fmt::format("'{}' plot {} >/dev/null 2>&1", program, arguments).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void expect_picture(const std::filesystem::path& path) {
  ASSERT_TRUE(std::filesystem::exists(path));
  const auto bytes = read_text(path);
  EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
  EXPECT_GT(bytes.size(), 10000u);
  std::filesystem::remove(path);
}

TEST(PlotCli, FieldsAsMaps) {
  const TemporaryFolder folder;
  const state::Fields fields{
      {{"t2m", "air_temperature", "2 m temperature", "K"}, {"dt", "", "departure", "K"}},
      LatLonGrid({60, 50, 40, 30}, {-10, 0, 10, 20, 30}),
      {0, 21600},
      280 + at::arange(80, at::kFloat).view({2, 2, 20})};
  write_fields(folder / "a.nc", fields);
  auto gaps = fields;
  gaps.data = fields.data.clone();
  gaps.data[1][0].slice(0, 0, 7).fill_(NAN);
  write_fields(folder / "gaps.nc", gaps);
  EXPECT_EQ(plot((folder / "gaps.nc").string()), 0);
  gaps.data[1][0].fill_(NAN);
  write_fields(folder / "gaps.nc", gaps);
  EXPECT_EQ(plot((folder / "gaps.nc").string()), 4);
  const auto file = (folder / "a.nc").string(), out = (folder / "b.png").string();
  EXPECT_EQ(plot(file), 0);
  expect_picture(folder / "a.png");
  EXPECT_EQ(plot(file + " --variable dt --palette difference --time 1970-01-01 -o " + out), 0);
  expect_picture(out);
  EXPECT_EQ(plot(file + " --time 1970-01-02"), 4);
  EXPECT_EQ(plot(file + " --time yesterday"), 2);
  EXPECT_EQ(plot(file + " --palette pink"), 2);
  EXPECT_EQ(plot(file + " --variable q"), 4);
  EXPECT_EQ(plot(file + " -o " + (folder / "none" / "x.png").string()), 5);
  EXPECT_EQ(plot((folder / "none.nc").string()), 4);
  EXPECT_EQ(plot(""), 2);
}

// A variable that nobody asked for may be on another grid.
TEST(PlotCli, TheFirstOfSeveralGrids) {
  const TemporaryFolder folder;
  write_netcdf(folder / "a.nc", [](NetcdfWriter& file) {
    for (const std::string n : {"1", "2"}) {
      file.dimension("lat" + n, 3);
      file.dimension("lon" + n, 4);
      file.variable("lat" + n, at::kDouble, {"lat" + n});
      file.attribute("lat" + n, "units", "degrees_north");
      file.write("lat" + n, at::tensor({30., 40., 50.}, at::kDouble));
      file.variable("lon" + n, at::kDouble, {"lon" + n});
      file.attribute("lon" + n, "units", "degrees_east");
      file.write("lon" + n, at::tensor({0., 10., 20., 30.}, at::kDouble));
      file.variable("t" + n, at::kFloat, {"lat" + n, "lon" + n});
      file.write("t" + n, at::arange(12, at::kFloat).view({3, 4}));
    }
  });
  EXPECT_EQ(plot((folder / "a.nc").string()), 0);
  EXPECT_EQ(plot((folder / "a.nc").string() + " --variable t2"), 0);
}

class FeedbackPlot : public testing::TestWithParam<bool> {};

TEST_P(FeedbackPlot, FeedbackAsSeries) {
  const TemporaryFolder folder;
  write_netcdf(folder / "f.nc", [](NetcdfWriter& file) {
    file.dimension("obs", 6);
    for (const char* name : {"time", "analysis_time"}) {
      file.variable(name, at::kLong, {"obs"});
      file.attribute(name, "units", "seconds since 1970-01-01 00:00:00");
      file.write(name, at::tensor({0, 0, 21600, 21600, 43200, 43200}, at::kLong));
    }
    for (const char* name : {"analysis", "climatology", "oa"}) {
      if (GetParam() && std::string_view(name) == "climatology") continue;
      file.variable(name, at::kFloat, {"obs"});
      file.attribute(name, "units", "K");
      const double base = std::string_view(name) == "oa" ? 0 : 280;
      file.write(name, base + at::arange(6, at::kFloat));
    }
    file.string_variable("station", {"obs"});
    file.write_strings("station", {"A", "B", "A", "B", "A", "B"});
  });
  const auto file = (folder / "f.nc").string();
  EXPECT_EQ(plot(file), 0);
  expect_picture(folder / "f.png");
  EXPECT_EQ(plot(file + " --station B"), 0);
  EXPECT_EQ(plot(file + " --station C"), 4);
}

// with and without climatology, which the picture can do without
INSTANTIATE_TEST_SUITE_P(PlotCli, FeedbackPlot, testing::Bool());

TEST(PlotCli, TablesAsCurvesAndBars) {
  const TemporaryFolder folder;
  write_text(folder / "log.csv", "step,loss\n1,1.0\n2,0.5\n3,0.01\n");
  EXPECT_EQ(plot((folder / "log.csv").string()), 0);
  expect_picture(folder / "log.png");
  write_text(folder / "scores.csv",
             "protocol,analyser,metric,units,value,low,high,reference,difference,difference_low,"
             "difference_high,confidence,times,stations,seconds\n"
             "real,climatology,RMSE,K,4,3.8,4.2,,,,,0.95,10,3,0.1\n"
             "real,network,RMSE,K,2,1.8,2.2,climatology,-2,-2.2,-1.8,0.95,10,3,0.1\n");
  EXPECT_EQ(plot((folder / "scores.csv").string()), 0);
  expect_picture(folder / "scores.png");
  write_text(folder / "other.csv", "a,b\n1,2\n");
  EXPECT_EQ(plot((folder / "other.csv").string()), 4);
}

}  // namespace
}  // namespace halcyon
