// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/linear/linear.h"

// The matrix products of a linear layer, by two libraries that torch's wheels both hold: what ATen
// calls (MKL), and oneDNN, which adds the bias and the activation to the sums in registers; and by
// our own, where both lay a transposed operand out anew.
//
// MKL's own choice of kernels depends on the maker of the processor: on AMD's it runs AVX2 code at
// less than half of oneDNN's AVX-512 rate. On Intel's the two are alike but for the bias, which
// costs ATen a pass over the result, and for the weights' gradient, where oneDNN copies a
// transposed operand (bench/RESULTS.md, "Linear layers").
namespace halcyon::linear_detail {

// own: transposed_product(), for the gradient of the weight; elsewhere it is ATen.
enum class Library { aten, onednn, own };

struct Routes {
  Library forward, input, weight;  // the result, the gradient of x, the gradient of the weight
};

// Whether this build of torch has oneDNN's operator.
bool has_onednn();

// What is fastest on processors of this maker, as measured.
Routes default_routes();

// x (M, in), weight (out, in), bias as in linear_layer(); grad_out (M, out). All float on a CPU.
at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Activation activation, Library library);
at::Tensor input_gradient(const at::Tensor& grad_out, const at::Tensor& weight, Library library);
at::Tensor weight_gradient(const at::Tensor& grad_out, const at::Tensor& x, Library library);

// left^T right (m, n) of (k, m) and (k, n), float on a CPU. The same bits for every number of
// threads.
at::Tensor transposed_product(const at::Tensor& left, const at::Tensor& right,
                              CpuLevel level = cpu_level());

// The three passes by the route that the autotuner has found, where it is on, or the default one.
at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Activation activation);
at::Tensor input_gradient(const at::Tensor& grad_out, const at::Tensor& weight);
at::Tensor weight_gradient(const at::Tensor& grad_out, const at::Tensor& x);

}  // namespace halcyon::linear_detail
