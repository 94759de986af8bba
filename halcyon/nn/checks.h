// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "halcyon/base/describe.h"

// What every module's forward asks of its inputs; each throws Error(argument) naming the module.
namespace halcyon::nn {

bool autocast_on(const at::Tensor& x);

// x is defined and floating, on the device of the module's weight and of its dtype; under autocast
// any mixture of single and half precisions passes. weight must hold values.
void check_input(std::string_view module, std::string_view name, const at::Tensor& x,
                 const at::Tensor& weight);

void check_rank(std::string_view module, std::string_view name, const at::Tensor& x, int64_t rank,
                std::string_view layout);
// The last axis of x has `width` elements.
void check_width(std::string_view module, std::string_view name, const at::Tensor& x,
                 int64_t width);
// Rates of dropout and drop path: 0 <= rate <= 1.
void check_rate(std::string_view module, std::string_view name, double rate);
// hidden_size and num_heads are positive and divide; returns the heads' width.
int64_t head_width(std::string_view module, int64_t hidden_size, int64_t num_heads);
void check_positive(std::string_view module, std::string_view name, int64_t value);

}  // namespace halcyon::nn
