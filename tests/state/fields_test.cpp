// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/fields.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"
#include "halcyon/state/area.h"
#include "tests/support/compare.h"

namespace halcyon::state {
namespace {

using test::identical;
using test::near;

Fields small_fields() {
  return {{{"t", "air_temperature", "", "K"}, {"p", "", "", "Pa"}},
          LatLonGrid({60, 50, 40}, {350, 355}),
          {0, 21600, 43200},
          at::arange(36, at::kFloat).view({3, 2, 6})};
}

template <class F>
void expect_error(F&& run, ErrorKind kind, const std::string& part) {
  try {
    run();
    FAIL() << "no error; expected one with: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Fields, SelectionsKeepWhatBelongsTogether) {
  const Fields all = small_fields();
  const Fields late = select_times(all, {21600, 43200});
  EXPECT_EQ(late.times, (std::vector<int64_t>{21600, 43200}));
  EXPECT_TRUE(identical(late.data, all.data.narrow(0, 1, 2)));
  const Fields one = select_variables(all, {"p"});
  EXPECT_EQ(one.variables.size(), 1u);
  EXPECT_EQ(one.variables[0].units, "Pa");
  EXPECT_TRUE(identical(one.data, all.data.narrow(1, 1, 1)));
}

TEST(Fields, MissingTimesAndNamesAreNamed) {
  const Fields all = small_fields();
  expect_error([&] { select_times(all, {10800}); }, ErrorKind::input,
               "1970-01-01T03:00:00Z, but the nearest are 1970-01-01T00:00:00Z and "
               "1970-01-01T06:00:00Z");
  expect_error([&] { select_times(all, {-3600}); }, ErrorKind::input, "the first is 1970-01-01T00");
  expect_error([&] { select_times(all, {86400}); }, ErrorKind::input, "the last is 1970-01-01T12");
  expect_error([&] { select_times(all, {21600, 0}); }, ErrorKind::argument, "ascending times");
  expect_error([&] { select_variables(all, {"q"}); }, ErrorKind::input, "got only: t, p");
}

TEST(Fields, CheckFindsEveryMismatch) {
  const auto broken = [](auto&& spoil, const char* part) {
    Fields fields = small_fields();
    spoil(fields);
    expect_error([&] { check(fields, "test"); }, ErrorKind::argument, part);
  };
  broken([](Fields& f) { f.data = f.data.to(at::kDouble); }, "float32");
  broken([](Fields& f) { f.data = f.data.view({3, 12}); }, "rank 2");
  broken([](Fields& f) { f.data = at::Tensor(); }, "no tensor");
  broken([](Fields& f) { f.variables.pop_back(); }, "data for 1 variables, got 2");
  broken([](Fields& f) { f.times.pop_back(); }, "data at 2 times, got 3");
  broken([](Fields& f) { f.times.clear(); }, "data at 1 times, got 3");
  broken([](Fields& f) { f.times[1] = 0; }, "ascending times");
  broken([](Fields& f) { f.grid = Region::global(0); }, "data at 12 points, got 6");
}

TEST(Area, WeightsAreCosinesOrEqual) {
  const at::Tensor weights = area_weights(LatLonGrid({60, 0}, {0, 10}));
  EXPECT_TRUE(near(weights, at::tensor({0.5 / 3, 0.5 / 3, 1.0 / 3, 1.0 / 3}, at::kDouble), 1e-12));
  const at::Tensor equal = area_weights(Region::global(0));
  EXPECT_TRUE(near(equal, at::full({12}, 1.0 / 12, at::kDouble), 1e-12));
}

TEST(Area, BoxesMayCrossAnyMeridian) {
  const Grid grid = LatLonGrid({10, 0}, {350, 355, 360, 365});
  const auto chosen = [&](Box box) {
    const at::Tensor mask = inside(grid, box);
    std::string text;
    for (int64_t i = 0; i < mask.numel(); ++i) text += mask[i].item<bool>() ? '1' : '0';
    return text;
  };
  EXPECT_EQ(chosen({-5, 0, 0, 10}), "01100110");
  EXPECT_EQ(chosen({355, 5, 5, 10}), "01110000");
  EXPECT_EQ(chosen({0, 360, 0, 0}), "00001111");
  EXPECT_EQ(chosen({-180, 180, -90, 90}), "11111111");
  EXPECT_EQ(chosen({0, 0, 10, 10}), "00100000");
}

}  // namespace
}  // namespace halcyon::state
