// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <thread>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

at::Tensor part(const at::Tensor& x, const Group& group, int64_t dim) {
  const auto starts = starts_of(split_sizes(x.size(dim), group));
  return x.narrow(dim, starts[group.rank()], starts[group.rank() + 1] - starts[group.rank()]);
}

// <halo(x), y> = <x, halo'(y)>, summed over the ranks.
TEST(HaloExchange, BackwardIsTheAdjoint) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    for (const auto* edge : {"zero", "periodic", "reflect", "fold", "none"}) {
      std::vector<double> forward(ranks), backward(ranks);
      test::on_ranks(ranks, [&](const Group& group) {
        const auto x = part(at::randn({2, 7, 4}, at::kDouble), group, 1).clone().requires_grad_();
        const auto out = halo_exchange(x, {3, 2}, 1, group, edge);
        const auto y = at::randn(out.sizes(), at::kDouble);
        const auto product = (out * y).sum();
        product.backward();
        forward[group.rank()] = product.item<double>();
        backward[group.rank()] = (x.detach() * x.grad()).sum().item<double>();
      });
      double difference = 0;
      for (int64_t r = 0; r < ranks; ++r) difference += forward[r] - backward[r];
      EXPECT_NEAR(difference, 0, 1e-12) << edge << " on " << ranks;
    }
  }
}

TEST(HaloExchange, SendsNoMoreThanTheHalos) {
  const auto before = traffic();
  test::on_ranks(3, [](const Group& group) { halo_exchange(at::zeros({4, 10, 8}), 2, 1, group); });
  // four halos of 4 x 2 x 8 floats, which ride with the six headers of 512 bytes
  EXPECT_EQ(traffic().messages - before.messages, 6);
  EXPECT_EQ(traffic().bytes - before.bytes, 4 * (4 * 2 * 8 * 4) + 6 * 512);
}

TEST(HaloExchange, SendsLargeHalosByThemselves) {
  const auto before = traffic();
  test::on_ranks(2, [](const Group& group) {
    const auto x = at::full({300, 10, 100}, static_cast<double>(group.rank()), at::kFloat);
    const auto out = halo_exchange(x, 9, 1, group);
    const auto halo = group.rank() == 0 ? out.narrow(1, 19, 9) : out.narrow(1, 0, 9);
    EXPECT_TRUE(halo.eq(1.0 - static_cast<double>(group.rank())).all().item<bool>());
  });
  EXPECT_EQ(traffic().messages - before.messages, 2 + 2);
  EXPECT_EQ(traffic().bytes - before.bytes, 2 * (300 * 9 * 100 * 4) + 2 * 512);
}

TEST(HaloExchange, NamesASilentPeer) {
  try {
    test::on_ranks(
        3,
        [](const Group& group) {
          if (group.rank() != 1) halo_exchange(at::zeros({4, 3}), 1, 0, group);
          if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        },
        1);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::communication);
    EXPECT_TRUE(
        std::string(e.what()).starts_with("[halo_exchange] rank 0: no answer from rank 1 "
                                          "after 1."))
        << e.what();
  }
}

TEST(HaloExchange, NamesADeadPeer) {
  try {
    test::on_ranks(3, [](const Group& group) {
      if (group.rank() != 1) halo_exchange(at::zeros({4, 3}), 1, 0, group);
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::communication);
    EXPECT_TRUE(
        std::string(e.what()).starts_with("[halo_exchange] rank 0: no answer from rank 1 "
                                          "after 0."))
        << e.what();
  }
}

}  // namespace
}  // namespace halcyon::parallel
