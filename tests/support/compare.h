// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

namespace halcyon::test {

// The tolerances of the house, relative to the largest magnitude of the expected tensor.
inline constexpr double kLayer = 2e-5, kModel = 1e-4, kGradient = 2e-4, kBf16 = 2e-2,
                        kDouble = 1e-10;

// |actual - expected| <= relative * max|expected| everywhere (NaN equals NaN only); a failure names
// the worst element.
testing::AssertionResult near(const at::Tensor& actual, const at::Tensor& expected,
                              double relative);

// Same shape, dtype and bits (NaN payloads aside).
testing::AssertionResult identical(const at::Tensor& actual, const at::Tensor& expected);

}  // namespace halcyon::test
