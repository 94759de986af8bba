// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon {

enum class Activation { none, gelu_tanh };

// activation(x W^T + b), as torch's linear and gelu. x (..., in), weight (out, in), bias (out,) or
// undefined; result (..., out). Any floating type and device; differentiable in all three.
//
// Large products of float on a CPU go to the library that is fastest on it, forward and backward
// apart: see routes.h. All of them compute in true float unless torch is told otherwise
// (set_float32_matmul_precision). Where the processor multiplies bfloat16 no faster than float
// (cpu_bf16.h), layers of bfloat16, by type or by autocast, are computed in float and their results
// and gradients rounded.
at::Tensor linear_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        Activation activation = Activation::none);

}  // namespace halcyon
