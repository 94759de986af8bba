// SPDX-License-Identifier: Apache-2.0
// Halos, pads of HEALPix faces and reshards against ../shared/golden/parallel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <regex>

#include "halcyon/parallel/healpix_pad.h"
#include "halcyon/parallel/reshard.h"
#include "halcyon/parallel/rows.h"
#include "tests/parallel/golden_cases.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::parallel {
namespace {

using namespace test;
using torch::autograd::grad;
using Tensors = std::vector<at::Tensor>;

constexpr double kFewFloats = 5e-7;  // the order of a few additions of floats

std::string of_rank(const std::string& name, int64_t rank) {
  return name + std::to_string(rank);
}

// parts: of each rank what it gets, and the gradient of its rows.
void expect_rows(const GoldenCase& one, const Parts& parts, int64_t dim) {
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    EXPECT_TRUE(identical(parts[rank][0], one[of_rank("y", static_cast<int64_t>(rank))]))
        << "rank " << rank;
  }
  EXPECT_TRUE(near(joined(parts, 1, dim), one["dx"], kFewFloats));
}

Problem halo_of_credit(const GoldenCase& one, int64_t ranks) {
  const auto dim = one.number("dim").value(), width = one.number("w").value();
  const auto work = [&one, dim, width](const Place& place) -> Tensors {
    const auto rank = place.all.rank();
    const auto x = leaf(part(one["x"], one.sizes(place.all.size(), dim), rank, dim));
    const auto y = halo_exchange(x, width, dim, place.all);
    return {y.detach(), grad({y}, {x}, {one[of_rank("g", rank)]})[0]};
  };
  return {one.name, 1, ranks, work,
          [&one, dim](const Parts& parts) { expect_rows(one, parts, dim); }};
}

// Every rank has 3 rows and asks for 5 of both sides, as the peer's complaint says.
Problem wide_halo(const GoldenCase& one, int64_t ranks) {
  const auto complaint = one.peer.at("peer_raised").get<std::string>();
  std::smatch numbers;
  EXPECT_TRUE(std::regex_search(complaint, numbers,
                                std::regex(R"(length \((\d+)\) exceeds dimension size \((\d+)\))")))
      << complaint;
  const int64_t width = std::stoll(numbers[1]), rows = std::stoll(numbers[2]);
  EXPECT_GT(width, rows);
  const auto x = at::arange(ranks * rows * 4, at::kFloat).sin().view({1, 1, ranks * rows, 4});
  const auto work = [=](const Place& place) -> Tensors {
    const auto mine = leaf(x.narrow(-2, place.all.rank() * rows, rows));
    const auto y = halo_exchange(mine, width, -2, place.all);
    return {y.detach(), grad({y.pow(3).sum()}, {mine})[0]};
  };
  const auto check = [=](const Parts& parts) {
    const auto whole = leaf(x), padded = at::constant_pad_nd(whole, {0, 0, width, width});
    auto loss = at::zeros({});
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto wanted = padded.narrow(-2, rank * rows, rows + 2 * width);
      EXPECT_TRUE(identical(parts[rank][0], wanted.detach())) << "rank " << rank;
      loss = loss + wanted.pow(3).sum();
    }
    EXPECT_TRUE(near(joined(parts, 1, -2), grad({loss}, {whole})[0], kFewFloats));
  };
  return {one.name, 1, ranks, work, check};
}

// g1 and g2 are the derivative of the sum of y^3 by x, and that of sum(g1 v).
Problem derivatives(const GoldenCase& one, int64_t ranks) {
  const auto work = [&one](const Place& place) -> Tensors {
    const auto mine = [&](const char* name) {
      return part(one[name], one.sizes(place.all.size(), -2), place.all.rank(), -2);
    };
    const auto x = leaf(mine("x")), y = halo_exchange(x, 1, -2, place.all);
    const auto g1 = grad({y.pow(3).sum()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true);
    return {g1[0], grad({(g1[0] * mine("v")).sum()}, {x})[0]};
  };
  const auto check = [&one](const Parts& parts) {
    EXPECT_TRUE(near(joined(parts, 0, -2), one["g1"], kExact));
    EXPECT_TRUE(near(joined(parts, 1, -2), one["g2"], kExact));
  };
  return {one.name, 1, ranks, work, check};
}

TEST(ParallelGoldens, HalosOfCredit) {
  HALCYON_NEEDS_SHARED();
  for (const auto* file : {"credit_halo_n2", "credit_halo_n3"}) {
    const auto [ranks, cases] = golden_cases(file);
    std::vector<Problem> problems;
    for (const auto& one : cases) {
      const auto make = one.name == "too_wide" ? wide_halo
                        : one.name == "double" ? derivatives
                                               : halo_of_credit;
      problems.push_back(make(one, ranks));
    }
    EXPECT_EQ(problems.size(), 14U);
    solve(problems);
  }
}

// Beyond the ends of the axis only `edge` rows of zeros.
Problem halo_of_physicsnemo(const GoldenCase& one, int64_t ranks) {
  const auto dim = one.number("dim").value(), width = one.number("w").value();
  const auto edge = one.number("edge").value();
  const auto work = [=, &one](const Place& place) -> Tensors {
    const auto rank = place.all.rank();
    const auto sizes = one.sizes(ranks, dim), starts = starts_of(sizes);
    const auto x = leaf(part(one["x"], sizes, rank, dim));
    const auto before = rank == 0 ? edge : width, after = rank == ranks - 1 ? edge : width;
    const auto y = gather_rows(x, starts[rank] - before, starts[rank + 1] + after, dim, place.all);
    const auto wide = halo_exchange(x, width, dim, place.all);
    return {y.detach(), grad({y}, {x}, {one[of_rank("g", rank)]})[0],
            trim(wide, width - before, width - after, dim).detach(), trim(y, before, after, dim)};
  };
  const auto check = [=, &one](const Parts& parts) {
    expect_rows(one, parts, dim);
    for (const auto& rank : parts) EXPECT_TRUE(identical(rank[2], rank[0]));
    EXPECT_TRUE(identical(joined(parts, 3, dim), one["x"]));
  };
  return {one.name, 1, ranks, work, check};
}

TEST(ParallelGoldens, HalosOfPhysicsNeMo) {
  HALCYON_NEEDS_SHARED();
  const auto [ranks, cases] = golden_cases("pnm_halo_n2");
  std::vector<Problem> problems;
  for (const auto& one : cases) problems.push_back(halo_of_physicsnemo(one, ranks));
  EXPECT_EQ(problems.size(), 32U);
  solve(problems);
}

// One exchange after the other; the corners come right.
Problem halo_on_two_axes(const GoldenCase& one, int64_t ranks) {
  const auto work = [&one](const Place& place) -> Tensors {
    const auto& [all, down, along] = place;
    const auto& x = one["x"];
    const auto rows = part(x, split_sizes(x.size(-2), down), down.rank(), -2);
    const auto mine = leaf(part(rows, split_sizes(x.size(-1), along), along.rank(), -1));
    const auto width = one.number("w").value();
    const auto y = halo_exchange(halo_exchange(mine, width, -2, down), width, -1, along);
    return {y.detach(), grad({y}, {mine}, {one[of_rank("g", all.rank())]})[0]};
  };
  const auto check = [&one](const Parts& parts) {
    const auto half = parts.begin() + static_cast<int64_t>(parts.size()) / 2;
    const Parts rows{{joined({parts.begin(), half}, 1, -1)}, {joined({half, parts.end()}, 1, -1)}};
    for (size_t rank = 0; rank < parts.size(); ++rank) {
      EXPECT_TRUE(identical(parts[rank][0], one[of_rank("y", static_cast<int64_t>(rank))]));
    }
    EXPECT_TRUE(near(joined(rows, 0, -2), one["dx"], kFewFloats));
  };
  return {one.name, 2, ranks / 2, work, check};
}

TEST(ParallelGoldens, HalosOnTwoAxes) {
  HALCYON_NEEDS_SHARED();
  const auto [ranks, cases] = golden_cases("pnm_halo2d_n4");
  std::vector<Problem> problems;
  for (const auto& one : cases) problems.push_back(halo_on_two_axes(one, ranks));
  EXPECT_EQ(problems.size(), 2U);
  solve(problems);
}

// x with or without a batch before the faces.
Problem faces(const GoldenCase& one, const std::vector<int64_t>& sizes, int64_t batch) {
  const auto of = [&one, batch](const char* name) {
    return batch != 0 ? one[name].unsqueeze(0) : one[name];
  };
  const auto work = [=, &one](const Place& place) -> Tensors {
    const auto x = leaf(part(of("x"), sizes, place.all.rank(), batch));
    const auto y = healpix_pad(x, one.number("p").value(), place.all);
    return {y, grad({y}, {x}, {part(of("g"), sizes, place.all.rank(), batch)})[0]};
  };
  const auto check = [=](const Parts& parts) {
    EXPECT_TRUE(identical(joined(parts, 0, batch), of("y")));
    EXPECT_TRUE(near(joined(parts, 1, batch), of("dx"), kExact));
  };
  return {one.name, 1, static_cast<int64_t>(sizes.size()), work, check};
}

TEST(ParallelGoldens, FacesOfHealpix) {
  HALCYON_NEEDS_SHARED();
  std::vector<Problem> problems;
  const auto file = golden_cases("ref_healpix_padding");
  for (const auto& one : file.cases) {
    if (one.peer.is_string()) continue;  // why the peer could not be run
    for (const auto& sizes : cuts_of(12)) {
      for (const int64_t batch : {0, 1}) problems.push_back(faces(one, sizes, batch));
    }
  }
  EXPECT_EQ(problems.size(), 2 * 2 * cuts_of(12).size());
  solve(problems);
}

// Frames and pixels are cut as torch.tensor_split does; there and, in some cases, back.
Problem reshard(const GoldenCase& one, int64_t ranks) {
  const auto& full = one["full"];
  const auto frames = split_sizes(full.size(1), ranks), pixels = split_sizes(full.size(2), ranks);
  const bool goes_back = one.has("grad_t_sharded");
  const auto work = [=, &one](const Place& place) {
    const auto rank = place.all.rank();
    const auto t = leaf(part(one["full"], frames, rank, 1));
    const auto x = shard_x(t, place.all), again = shard_t(x, place.all);
    const auto dx = part(one["grad_x_sharded"], pixels, rank, 2);
    Tensors results{x, again, grad({x}, {t}, {dx}, /*retain_graph=*/true)[0]};
    if (!goes_back) return results;
    const auto dt = part(one["grad_t_sharded"], frames, rank, 1);
    results.push_back(grad({again}, {t}, {dt})[0]);
    return results;
  };
  const auto check = [=, &one](const Parts& parts) {
    if (one.has("t_sizes")) {
      EXPECT_TRUE(identical(one["t_sizes"], at::tensor(frames)));
      EXPECT_TRUE(identical(one["x_sizes"], at::tensor(pixels)));
    }
    EXPECT_TRUE(identical(joined(parts, 0, 2), one["full"]));
    EXPECT_TRUE(identical(joined(parts, 1, 1), one["full"]));
    EXPECT_TRUE(identical(joined(parts, 2, 1), one["grad_x_sharded"]));
    if (!goes_back) return;
    EXPECT_TRUE(identical(joined(parts, 3, 1), one["grad_t_sharded"]));
  };
  return {one.name, 1, ranks, work, check};
}

TEST(ParallelGoldens, Reshards) {
  HALCYON_NEEDS_SHARED();
  for (const auto* file : {"reshard_n2", "reshard_n3"}) {
    const auto [ranks, cases] = golden_cases(file);
    std::vector<Problem> problems;
    for (const auto& one : cases) {  // those without tensors say what the peers did with others
      if (!one.tensors.empty()) problems.push_back(reshard(one, ranks));
    }
    EXPECT_EQ(problems.size(), ranks == 2 ? 3U : 2U);
    solve(problems);
  }
}

}  // namespace
}  // namespace halcyon::parallel
