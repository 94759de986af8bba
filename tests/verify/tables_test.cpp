// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "halcyon/base/csv.h"
#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/verify/score_table.h"
#include "halcyon/verify/station_series.h"
#include "tests/support/paths.h"

namespace halcyon::verify {
namespace {

using test::TemporaryFolder;

template <class F>
void expect_input_error(F&& run, const std::string& part) {
  try {
    run();
    FAIL() << "no error; expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::input);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(StationSeries, ReadsPlacesAndValues) {
  const TemporaryFolder folder;
  write_text(folder / "s.csv", "station,lat,lon\nA,40,-100\nB,30,-90\n");
  write_text(folder / "t.csv", "datetime,B,A\n2014-01-01 00:00:00,1,\n2014-01-01 06:00:00,3,4\n");
  const StationSeries series = read_station_series(folder / "s.csv", folder / "t.csv");
  EXPECT_EQ(series.stations, (std::vector<std::string>{"B", "A"}));
  EXPECT_EQ(series.lon[0].item<double>(), -90);
  EXPECT_EQ(series.lat[1].item<double>(), 40);
  EXPECT_EQ(series.times[1] - series.times[0], 21600);
  EXPECT_TRUE(std::isnan(series.values[0][1].item<double>()));
  EXPECT_EQ(series.values[1][1].item<double>(), 4);
  // the same from a data frame with row numbers
  write_text(folder / "r.csv",
             "\"\",\"datetime\",\"B\",\"A\"\r\n\"1\",\"2014-01-01\",1,NA\r\n"
             "\"2\",\"2014-01-01 06:00:00\",3,4\r\n");
  const StationSeries numbered = read_station_series(folder / "s.csv", folder / "r.csv");
  EXPECT_EQ(numbered.stations, series.stations);
  EXPECT_EQ(numbered.times, series.times);
  EXPECT_TRUE(numbered.values.nan_to_num(-1).equal(series.values.nan_to_num(-1)));

  const auto refused = [&](const char* text, const char* part) {
    write_text(folder / "t.csv", text);
    expect_input_error([&] { read_station_series(folder / "s.csv", folder / "t.csv"); }, part);
  };
  refused("time,C\n2014-01-01,1\n", "station C has no position");
  refused("time,A,A\n2014-01-01,1,2\n", "same name A");
  refused("time,A\n2014-01-01,x\n", "t.csv:2: expected a number");
  refused("time,A\nnoon,1\n", "t.csv:2");
  refused("time,A\n2014-01-02,1\n2014-01-01,1\n", "ascending times");
  refused("time,A\n", "rows of times");
}

ScoreTable two_rows() {
  ScoreRow reference, other;
  reference.protocol = other.protocol = "simulated, \"easy\"";
  reference.analyser = "climatology";
  other.analyser = "network";
  reference.units = other.units = "K";
  reference.score = {4.05, 3.9, 4.2};
  other.score = {2.0, 1.9, 2.1};
  other.reference = "climatology";
  other.difference = Estimate{-2.05, -2.2, -1.9};
  reference.times = other.times = 548;
  reference.stations = other.stations = 26;
  return {{reference, other}};
}

TEST(ScoreTable, TextJsonAndCsv) {
  const TemporaryFolder folder;
  const ScoreTable table = two_rows();
  const std::string text = table.text();
  EXPECT_NE(text.find("(548 analyses, 26 stations), RMSE in K"), std::string::npos) << text;
  EXPECT_NE(text.find("95 % interval"), std::string::npos) << text;
  EXPECT_NE(text.find("+2.05    +1.90 .. +2.20"), std::string::npos) << text;
  const auto json = nlohmann::json::parse(table.json());
  EXPECT_EQ(json[1]["score"]["value"], 2.0);
  EXPECT_EQ(json[1]["difference"]["low"], -2.2);
  EXPECT_FALSE(json[0].contains("difference"));
  table.save(folder / "t.csv");
  const Csv csv = read_csv(folder / "t.csv");
  EXPECT_EQ(csv.rows[0][0], "simulated, \"easy\"");
  EXPECT_EQ(csv.number(1, csv.column("difference_high")), -1.9);
  EXPECT_EQ(read_score_table(folder / "t.csv").csv(), table.csv());
  write_text(folder / "bad.csv", "protocol,analyser\na,b\n");
  expect_input_error([&] { read_score_table(folder / "bad.csv"); },
                     "no column metric; it has protocol, analyser");
  table.save(folder / "t.json");
  EXPECT_EQ(read_text(folder / "t.json"), table.json());
  EXPECT_EQ(table.at("simulated, \"easy\"", "network").score.value, 2.0);
  expect_input_error([&] { table.at("x", "network"); }, "got only: simulated");
}

}  // namespace
}  // namespace halcyon::verify
