// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon::bench {

// The largest |actual - expected| as a share of allowed * max|expected|; infinite where shapes
// differ or a value is not finite.
double deviation(const at::Tensor& actual, const at::Tensor& expected, double allowed);

// 0 or infinite.
double difference(const at::Tensor& actual, const at::Tensor& expected);

}  // namespace halcyon::bench
