// SPDX-License-Identifier: Apache-2.0
// Pads of a latitude-longitude globe that is cut over ranks along one axis or both, against
// ../shared/golden/parallel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/parallel/rows.h"
#include "tests/parallel/golden_cases.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::parallel {
namespace {

using namespace test;
using torch::autograd::grad;

struct Pads {
  std::string edge;  // of the latitudes
  HaloWidth latitudes, longitudes;
};

HaloWidth width_of(const nlohmann::json& pair) {
  return {pair.at(0).get<int64_t>(), pair.at(1).get<int64_t>()};
}

// "earth" sees the other side of the pole, "mirror" the rows themselves.
std::string edge_of_poles(const GoldenCase& one) {
  if (one.says("earth")) return "fold";
  if (one.says("mirror")) return "reflect";
  throw std::runtime_error("what are the poles of " + one.name + "?");
}

struct Cut {
  std::vector<int64_t> latitudes, longitudes;
  int64_t rows() const { return static_cast<int64_t>(latitudes.size()); }
  int64_t columns() const { return static_cast<int64_t>(longitudes.size()); }
};

std::vector<Cut> cuts_of_globe(const at::Tensor& x) {
  const auto height = x.size(-2), width = x.size(-1);
  std::vector<Cut> cuts;
  for (const auto& sizes : cuts_of(height)) cuts.push_back({sizes, {width}});
  for (const auto& sizes : cuts_of(width)) cuts.push_back({{height}, sizes});
  cuts.push_back({split_sizes(height, int64_t{2}), split_sizes(width, int64_t{2})});
  cuts.push_back({{height - 1, 1}, {1, width - 1}});
  return cuts;
}

// Of the padded globe what a rank gets: its rows and columns, and those around them.
at::Tensor seen_by(int64_t rank, const at::Tensor& padded, const Pads& pads, const Cut& cut) {
  const auto row = rank / cut.columns(), column = rank % cut.columns();
  return padded
      .narrow(-2, starts_of(cut.latitudes)[row],
              cut.latitudes[row] + pads.latitudes.before + pads.latitudes.after)
      .narrow(-1, starts_of(cut.longitudes)[column],
              cut.longitudes[column] + pads.longitudes.before + pads.longitudes.after);
}

struct Truth {
  at::Tensor x, y, g, dx;
};

Problem padded(const std::string& name, const Truth& truth, const Pads& pads, const Cut& cut) {
  const auto work = [=](const Place& place) -> std::vector<at::Tensor> {
    const auto& [all, down, along] = place;
    const auto rows = part(truth.x, cut.latitudes, down.rank(), -2);
    const auto mine = leaf(part(rows, cut.longitudes, along.rank(), -1));
    const auto inner = halo_exchange(mine, pads.latitudes, -2, down, pads.edge, {-1, along, 1.0});
    const auto out = halo_exchange(inner, pads.longitudes, -1, along, "periodic");
    // halos overlap: what a rank before this one gets has its cotangent there
    auto left = truth.g.clone();
    for (int64_t rank = 0; rank < all.rank(); ++rank) seen_by(rank, left, pads, cut).zero_();
    return {out.detach(), grad({out}, {mine}, {seen_by(all.rank(), left, pads, cut)})[0]};
  };
  const auto check = [=](const Parts& parts) {
    Parts rows;
    for (int64_t rank = 0; rank < cut.rows() * cut.columns(); ++rank) {
      EXPECT_TRUE(identical(parts[rank][0], seen_by(rank, truth.y, pads, cut))) << "rank " << rank;
      if (rank % cut.columns() != 0) continue;
      rows.push_back({joined({&parts[rank], &parts[rank] + cut.columns()}, 1, -1)});
    }
    EXPECT_TRUE(near(joined(rows, 0, -2), truth.dx, kExact));
  };
  return {name, cut.rows(), cut.columns(), work, check};
}

TEST(ParallelGoldens, PadsOfTheGlobe) {
  HALCYON_NEEDS_SHARED();
  std::vector<Problem> problems;
  int found = 0;
  for (const auto& one : golden_cases("ref_latlon_padding").cases) {
    if (one.tensors.empty()) continue;
    ++found;
    const Pads pads{edge_of_poles(one), width_of(one.peer.at("pad_lat")),
                    width_of(one.peer.at("pad_lon"))};
    const Truth truth{one["x"], one["y"], one["g"], one["dx"]};
    for (const auto& cut : cuts_of_globe(truth.x)) {
      problems.push_back(padded(one.name, truth, pads, cut));
    }
  }
  EXPECT_EQ(found, 6);
  solve(problems);
}

// The file has no tensors of a pad above only, where the peer appends the whole globe; its rows are
// the first ones of a pad on both sides.
TEST(ParallelGoldens, PadOfOnePole) {
  HALCYON_NEEDS_SHARED();
  std::vector<Problem> problems;
  const auto file = golden_cases("ref_latlon_padding");
  for (const auto& one : file.cases) {
    if (!one.tensors.empty()) continue;
    const auto edge = edge_of_poles(one);
    ASSERT_EQ(edge, "fold");
    const auto above = one.number("lat").value();
    const auto width = one.peer.at("peer_shape").back().get<int64_t>();
    const auto both = std::find_if(file.cases.begin(), file.cases.end(), [&](const auto& other) {
      return other.has("x") && edge_of_poles(other) == edge && other["x"].size(-1) == width &&
             width_of(other.peer.at("pad_lat")).before == above;
    });
    ASSERT_TRUE(both != file.cases.end());
    const auto x = leaf((*both)["x"]);
    const auto y = at::cat({x.narrow(-2, 0, above).flip(-2).roll(width / 2, -1), x}, -2);
    EXPECT_EQ(y.size(-2), one.peer.at("expected_rows").get<int64_t>());
    const auto of_file = [&](const char* name) {
      const auto left = width_of(both->peer.at("pad_lon")).before;
      return (*both)[name].narrow(-2, 0, y.size(-2)).narrow(-1, left, width);
    };
    const Truth truth{x.detach(), of_file("y"), of_file("g"), grad({y}, {x}, {of_file("g")})[0]};
    for (const auto& cut : cuts_of_globe(x)) {
      problems.push_back(padded(one.name, truth, {edge, {above, 0}, 0}, cut));
    }
  }
  EXPECT_FALSE(problems.empty());
  solve(problems);
}

// The trainer's way: the globe padded by 6 rows on both sides, then cut, a model that changes
// nothing, and the pads cut off again. The peer is right on 2 ranks only; here every rank gets its
// own rows on any number of them.
TEST(ParallelGoldens, PadShardUnpad) {
  HALCYON_NEEDS_SHARED();
  constexpr int64_t kPad = 6;
  const auto file = golden_cases("credit_misc_n2");
  const auto one = std::find_if(file.cases.begin(), file.cases.end(),
                                [](const auto& other) { return other.name == "pad_shard_unpad"; });
  ASSERT_TRUE(one != file.cases.end());
  const auto whole = at::cat({(*one)["peer.y0"], (*one)["peer.y1"]}, -2);
  const auto numbers = one->peer.at("rows").get<std::vector<std::vector<double>>>();
  const auto height = whole.size(-2);
  const auto x = at::arange(height, whole.options()).view({height, 1}).expand_as(whole);
  const auto seen = x.roll(x.size(-1) / 2, -1);
  const auto wide = at::cat(
      {seen.narrow(-2, 0, kPad).flip(-2), x, seen.narrow(-2, height - kPad, kPad).flip(-2)}, -2);
  std::vector<Problem> problems;
  for (int64_t ranks = 1; ranks <= 4; ++ranks) {
    const auto work = [=](const Place& place) -> std::vector<at::Tensor> {
      const auto rank = place.all.rank();
      const auto sizes = split_sizes(height, ranks), own = starts_of(sizes);
      const auto padded = starts_of(split_sizes(height + 2 * kPad, ranks));
      const auto mine = leaf(part(x, sizes, rank, -2));
      const auto rows =
          gather_rows(mine, padded[rank] - kPad, padded[rank + 1] - kPad, -2, place.all, "fold");
      const auto model = halo_exchange(rows, kPad, -1, Group::alone(), "periodic");
      const auto back =
          gather_rows(model, own[rank] + kPad, own[rank + 1] + kPad, -2, place.all, "none");
      const auto out = trim(back, kPad, kPad, -1);
      return {rows, out, grad({out}, {mine}, {part(x.cos(), sizes, rank, -2)})[0]};
    };
    const auto check = [=](const Parts& parts) {
      EXPECT_TRUE(identical(joined(parts, 0, -2), wide));
      EXPECT_TRUE(identical(joined(parts, 1, -2), whole));
      EXPECT_TRUE(identical(joined(parts, 2, -2), x.cos()));
      for (size_t rank = 0; parts.size() == numbers.size() && rank < parts.size(); ++rank) {
        const auto column = parts[rank][1].detach().select(-1, 0).flatten();
        EXPECT_TRUE(identical(column, at::tensor(numbers[rank])));
      }
    };
    problems.push_back({one->name, 1, ranks, work, check});
  }
  solve(problems);
}

}  // namespace
}  // namespace halcyon::parallel
