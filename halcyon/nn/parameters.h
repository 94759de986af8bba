// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace halcyon::nn {

// What a module's constructor puts into its parameters.
enum class Parameters {
  initialised,    // drawn as the module documents
  linears_later,  // the same, but linear layers are only allocated: their owner draws them itself
  placeholders,  // one NaN broadcast to the shape: no memory. A checkpoint brings the values, which
                 // Tensor::set_data puts in (it refuses to replace tensors of the meta device)
};

// How modules built on this thread make their parameters; `initialised` unless a guard lives.
Parameters parameters_mode();

class ParametersGuard {
 public:
  explicit ParametersGuard(Parameters mode);
  ~ParametersGuard();
  ParametersGuard(const ParametersGuard&) = delete;
  ParametersGuard& operator=(const ParametersGuard&) = delete;

 private:
  Parameters before_;
};

// A tensor on the CPU, of torch's default dtype, without values: allocated or a placeholder.
at::Tensor empty_parameter(at::IntArrayRef sizes);
// True for a placeholder of more than one element.
bool is_placeholder(const at::Tensor& parameter);

// U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for the weights and biases of linear layers
// and convolutions; zero when fan_in is 0. Like the
// others below it leaves placeholders alone.
void init_uniform_fan_in(const at::Tensor& parameter, int64_t fan_in);
void init_normal(const at::Tensor& parameter, double deviation = 1);  // around 0
// Glorot's uniform distribution for a matrix (out, in).
void init_xavier_uniform(const at::Tensor& weight);
void init_constant(const at::Tensor& parameter, double value);

}  // namespace halcyon::nn
