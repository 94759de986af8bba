// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/device.h"
#include "halcyon/ops/tuning/environment.h"
#include "halcyon/ops/tuning/flops.h"
#include "tests/ops/ops_test.h"

namespace halcyon {
namespace {

using test::expect_error;
using Sizes = std::vector<int64_t>;

TEST(Flops, CountMultiplicationsAndAdditionsOfTheWindows) {
  const Sizes q{2, 6, 7, 4, 5}, v{2, 6, 7, 4, 3}, a{2, 6, 7, 4, 6}, kernel{3, 2};
  const int64_t pairs = 2 * 6 * 7 * 4 * 6;
  for (const int64_t causal : {0, 1}) {
    EXPECT_EQ(na_qk_flop_count(q, q, kernel, {1}, {causal}, true), 2 * pairs * 5);
    EXPECT_EQ(na_av_flop_count(a, v, kernel, {2, 1}, {causal}, true), 2 * pairs * 3);
    EXPECT_EQ(fna_flop_count(q, q, v, kernel, {1}, {causal, 0}, true), 2 * pairs * 8);
    EXPECT_EQ(fna_flop_count(q, q, v, kernel, {1}, {causal}, true, true), pairs * 8);
  }
  EXPECT_EQ(na_qk_flop_count({2, 4, 6, 7, 5}, {2, 4, 6, 7, 5}, kernel, {1}, {0}, false, true),
            pairs * 5);
  EXPECT_EQ(fna_flop_count({0, 6, 4, 5}, {0, 6, 2, 5}, {0, 6, 2, 5}, {3}, {1}, {0}, true), 0);
}

TEST(Flops, Refuse) {
  const Sizes q{2, 6, 7, 4, 5}, narrow{2, 6, 7, 4, 3}, huge{1L << 30, 1L << 30, 1, 4};
  const Sizes three{2, 6, 7};
  expect_error("[fna_flop_count] expected shapes of rank 4 to 6, got (2, 6, 7)",
               [&] { fna_flop_count(three, three, three, {3}, {1}, {0}, true); });
  expect_error("[na_qk_flop_count] expected key of rank 5 and width 5, got (2, 6, 7, 4, 3)",
               [&] { na_qk_flop_count(q, narrow, {3}, {1}, {0}, true); });
  expect_error("[na_av_flop_count] expected value of rank 5, got (2, 6, 7)",
               [&] { na_av_flop_count(q, three, {3}, {1}, {0}, true); });
  expect_error("expected one kernel_size or 2, one an axis, got 3", [&] {
    fna_flop_count(q, q, q, {3, 3, 3}, {1}, {0}, true);
  });
  expect_error("expected a kernel_size of 1 or more, got 0", [&] {
    fna_flop_count(q, q, q, {3, 0}, {1}, {0}, true);
  });
  expect_error("expected sizes of 0 or more", [&] {
    fna_flop_count({2, -6, 4, 5}, q, q, {3}, {1}, {0}, true);
  });
  expect_error("expected a count below 2^63",
               [&] { na_qk_flop_count(huge, huge, {1 << 20}, {1}, {0}, true); });
}

TEST(Environment, TheCpuTakesEverythingButTf32) {
  const c10::Device cpu(c10::kCPU);
  EXPECT_EQ(has_cuda(), why_no_cuda().empty());
  EXPECT_EQ(get_device_cc(cpu), 0);
  EXPECT_FALSE(has_tf32_gemm(cpu));
  for (const auto check : {has_half, has_bfloat, has_fna, has_gemm, has_fp32_gemm, has_fp64_gemm})
    EXPECT_TRUE(check(cpu));
  if (has_cuda()) return;
  EXPECT_EQ(get_device_cc(), 0);
  EXPECT_EQ(get_device_cc(c10::Device(c10::kCUDA, 0)), 0);
  EXPECT_TRUE(has_half());
}

// Where there is one.
TEST(Environment, ACudaDeviceHasACapability) {
  if (!has_cuda()) GTEST_SKIP() << why_no_cuda();
  EXPECT_GE(get_device_cc(), 50);
  EXPECT_EQ(has_tf32_gemm(), get_device_cc() >= 80);
  expect_error("cuda:99", [] { get_device_cc(c10::Device(c10::kCUDA, 99)); });
}

}  // namespace
}  // namespace halcyon
