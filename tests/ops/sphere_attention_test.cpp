// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"
#include "tests/ops/attention_bounds.h"
#include "tests/ops/ops_test.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using neighborhood::pixel_lists;
using neighborhood::PixelWindow;
using neighborhood::SphereInputs;
using test::Bound;
using test::expect_error;
using test::identical;
using test::kBounds;
using test::levels;
using test::near;

struct Shape {
  int64_t heads, groups, d, e;
};

void check(const PixelWindow& window, const Shape& shape, const Bound& bound) {
  const auto lists = pixel_lists(window);
  const auto pixels = static_cast<int64_t>(lists->token.size());
  const auto tensor = [&](int64_t heads, int64_t channels) {
    return at::randn({2, heads, pixels, channels}, at::kDouble).transpose(1, 2).to(bound.type);
  };
  const SphereInputs in{tensor(shape.heads, shape.d), tensor(shape.groups, shape.d),
                        tensor(shape.groups, shape.e), lists.get(), 0.4};
  SphereInputs wide = in;
  for (auto* t : {&wide.query, &wide.key, &wide.value})
    *t = t->to(at::kDouble).clone().requires_grad_();
  const auto expected = neighborhood::sphere_reference(wide);
  const auto grad_out = tensor(shape.heads, shape.e);
  const auto grads = torch::autograd::grad({expected.out}, {wide.query, wide.key, wide.value},
                                           {grad_out.to(at::kDouble)});
  for (const auto level : levels()) {
    SCOPED_TRACE(fmt::format("{} level {} d {} e {}", c10::toString(bound.type),
                             static_cast<int>(level), shape.d, shape.e));
    const auto out = neighborhood::sphere_forward(in, level);
    EXPECT_TRUE(near(out.out, expected.out.detach(), bound.forward));
    EXPECT_TRUE(near(out.lse, expected.lse.detach(), bound.forward));
    const auto delta = neighborhood::delta_of(out, grad_out, {});
    const auto grad = neighborhood::sphere_backward(in, out.lse, grad_out, delta, level);
    EXPECT_TRUE(near(grad.query, grads[0], bound.backward));
    EXPECT_TRUE(near(grad.key, grads[1], bound.backward));
    EXPECT_TRUE(near(grad.value, grads[2], bound.backward));
  }
}

TEST(SphereAttention, EveryInstructionSetAgreesWithTheReference) {
  at::manual_seed(3);
  const auto region = at::randperm(192, at::kLong).slice(0, 0, 37);
  const PixelWindow windows[] = {{2, 31.0, {}, healpix::Order::nest, {}},
                                 {3, {}, 2, healpix::Order::pad_xy, {}},
                                 {2, 40.0, {}, healpix::Order::pad_xy, region},
                                 {1, 180.0, {}, healpix::Order::nest, {}}};
  const Shape shapes[] = {{4, 2, 5, 3}, {2, 1, 32, 33}, {3, 3, 1, 16}};
  for (const auto& window : windows) {
    for (const auto& shape : shapes) {
      for (const auto& bound : kBounds) check(window, shape, bound);
    }
  }
}

// More sources than are gathered at a time.
TEST(SphereAttention, LongListsAgreeWithTheReference) {
  at::manual_seed(4);
  check({4, 60.0, {}, healpix::Order::nest, {}}, {1, 1, 8, 8}, kBounds[0]);
}

TEST(PixelLists, TheReleasedModelsDiskHasItsPublishedPairs) {
  const auto stats = neighborhood_attention_healpix_stats({6, 10.46, {}, healpix::Order::nest, {}});
  EXPECT_EQ(stats.pairs, 20143424);
  EXPECT_GT(stats.useful_share, 0.7);
}

TEST(PixelLists, AreKeptForTheirWindow) {
  const PixelWindow window{2, {}, 1, healpix::Order::nest, at::arange(20)};
  EXPECT_EQ(pixel_lists(window), pixel_lists({2, {}, 1, healpix::Order::nest, at::arange(20)}));
  EXPECT_NE(pixel_lists(window), pixel_lists({2, {}, 1, healpix::Order::nest, at::arange(21)}));
}

TEST(PixelLists, RefuseWhatIsNoWindow) {
  const auto stats = [](const HealpixNeighborhood& window) {
    return [window] { neighborhood_attention_healpix_stats(window); };
  };
  expect_error("a level in 0..13, got 14", stats({14, 10.0, {}, healpix::Order::nest, {}}));
  expect_error("one of radius_deg and rings, got none",
               stats({2, {}, {}, healpix::Order::nest, {}}));
  expect_error("one of radius_deg and rings, got both",
               stats({2, 10.0, 1, healpix::Order::nest, {}}));
  expect_error("above 0 up to 180, got 181", stats({2, 181.0, {}, healpix::Order::nest, {}}));
  expect_error("nest or pad_xy, got ring", stats({2, 10.0, {}, healpix::Order::ring, {}}));
  expect_error("pixels in 0..191, got 192",
               stats({2, 10.0, {}, healpix::Order::nest, at::arange(190, 193)}));
  expect_error("distinct pixels",
               stats({2, 10.0, {}, healpix::Order::nest, at::zeros({2}, at::kLong)}));
}

}  // namespace
}  // namespace halcyon
