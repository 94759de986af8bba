// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/interpolate.h"
#include "halcyon/parallel/pool.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

// f of each rank's rows (axis 2), put together again.
at::Tensor on_parts(int64_t ranks, const at::Tensor& x,
                    const std::function<at::Tensor(const at::Tensor&, const Group&)>& f) {
  std::vector<at::Tensor> results(ranks);
  test::on_ranks(ranks, [&](const Group& group) {
    results[group.rank()] = f(x.tensor_split(ranks, 2)[group.rank()], group);
  });
  return at::cat(results, 2);
}

TEST(ParallelOperators, AreThoseOfOneProcess) {
  const auto x = at::randn({2, 3, 14, 6}, at::kDouble);
  const auto weight = at::randn({4, 3, 3, 3}, at::kDouble), bias = at::randn({4}, at::kDouble);
  for (const int64_t ranks : {1, 2, 3, 4}) {
    EXPECT_TRUE(at::allclose(on_parts(ranks, x,
                                      [&](const at::Tensor& mine, const Group& group) {
                                        return conv(mine, weight, bias, 1, std::string("same"), 1,
                                                    1, "zeros", -2, group);
                                      }),
                             at::conv2d(x, weight, bias, 1, 1)));
    EXPECT_TRUE(at::allclose(on_parts(ranks, x,
                                      [&](const at::Tensor& mine, const Group& group) {
                                        return conv(mine, weight, bias, 2, PerAxis({2, 0}),
                                                    PerAxis({2, 1}), 1, "zeros", -2, group);
                                      }),
                             at::conv2d(x, weight, bias, 2, {2, 0}, {2, 1})));
    EXPECT_TRUE(at::allclose(on_parts(ranks, x,
                                      [&](const at::Tensor& mine, const Group& group) {
                                        return conv_transpose(mine, weight.transpose(0, 1), bias, 2,
                                                              1, 1, 1, 1, 2, group);
                                      }),
                             at::conv_transpose2d(x, weight.transpose(0, 1), bias, 2, 1, 1)));
    EXPECT_TRUE(at::equal(on_parts(ranks, x,
                                   [&](const at::Tensor& mine, const Group& group) {
                                     return pool(mine, 3, PerAxis(2), 1, 1, "avg", true, false, -2,
                                                 group);
                                   }),
                          at::avg_pool2d(x, 3, 2, 1, true, false)));
    EXPECT_TRUE(at::allclose(on_parts(ranks, x,
                                      [&](const at::Tensor& mine, const Group& group) {
                                        return interpolate(mine, std::vector<int64_t>{21, 5}, {},
                                                           "bilinear", false, -2, group);
                                      }),
                             at::upsample_bilinear2d(x, std::vector<int64_t>{21, 5}, false)));
  }
}

// One agreement, the halos forward, their cotangents back.
TEST(ParallelOperators, AConvolutionSendsItsHalosOnly) {
  const auto before = traffic();
  test::on_ranks(3, [](const Group& group) {
    const auto x = at::zeros({1, 4, 10, 8}).requires_grad_();
    conv(x, at::zeros({2, 4, 3, 3}), {}, 1, PerAxis(1), 1, 1, "zeros", -2, group).sum().backward();
  });
  EXPECT_EQ(traffic().messages - before.messages, 6 + 2 * 4);
  EXPECT_EQ(traffic().bytes - before.bytes, 6 * 512 + 2 * 4 * (4 * 8 * 4));
}

}  // namespace
}  // namespace halcyon::parallel
