// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/row_operator.h"
#include "halcyon/parallel/row_plan.h"

namespace halcyon::parallel::conv_detail {

// A convolution's options, after the checks; vectors have one entry a spatial axis.
struct Problem {
  std::string operation;
  int64_t spatial = 0;  // axes
  int64_t at = 0;       // the sharded one among them
  std::vector<int64_t> kernel, stride, before, after, dilation;
  int64_t groups = 1;
  std::string mode;
  Edge edge = Edge::zero;

  int64_t extent(int64_t i) const { return dilation[i] * (kernel[i] - 1) + 1; }
  // Output rows of an input of so many.
  int64_t output(int64_t i, int64_t rows) const {
    const auto room = rows + before[i] + after[i] - extent(i);
    return room < 0 ? 0 : room / stride[i] + 1;
  }
};

// weight and bias fit x (batch, channels, ...); in_axis is the weight's axis of x's channels.
void check_parameters(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      int64_t groups, bool transposed, const std::string& operation);
void agree_on_parameters(Agreement& agreement, const at::Tensor& weight, const at::Tensor& bias);
void agree_on(Agreement& agreement, const char* name, const std::vector<int64_t>& values);

// x (batch, channels, ...) with what the padding of the axes that are not sharded needs beyond
// zeros on both sides alike; pads is what the convolution is to add itself.
at::Tensor padded_off_axis(const at::Tensor& x, const Problem& p, std::vector<int64_t>& pads);

// Whether each rank's rows are convolved in place and only those at its ends again, with the rows
// of the neighbours; all ranks come to the same answer.
bool can_convolve_in_place(const ShardedAxis& axis, const Problem& p);
// That; x is padded off the axis, pads as from there.
at::Tensor convolve_in_place(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const ShardedAxis& axis, const Problem& p,
                             const std::vector<int64_t>& pads);

}  // namespace halcyon::parallel::conv_detail
