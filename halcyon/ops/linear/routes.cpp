// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/linear/routes.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include <bit>

#include "halcyon/ops/cpu_level.h"
#include "halcyon/ops/tuning/autotuner.h"

namespace halcyon::linear_detail {
namespace {

using LinearPointwise = at::Tensor(const at::Tensor& x, const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias, c10::string_view attr,
                                   c10::List<std::optional<at::Scalar>> scalars,
                                   std::optional<c10::string_view> algorithm);

const std::optional<c10::OperatorHandle>& onednn_operator() {
  static const auto found =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return found;
}

// x W^T by oneDNN.
at::Tensor onednn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Activation activation) {
  static const auto op = onednn_operator()->typed<LinearPointwise>();
  const bool gelu = activation == Activation::gelu_tanh;
  // it reads the bias as contiguous, whatever its strides say
  return op.call(x, weight, bias.defined() ? std::optional(bias.contiguous()) : std::nullopt,
                 gelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(),
                 gelu ? "tanh" : "");
}

bool made_by_amd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

constexpr const char* kNames[]{"aten", "onednn", "own"};  // of Library, in its order

// The library, of the first so many, that a pass of this problem takes; run(library) computes with
// it. Rows are told apart by their power of two, as counts of observations change from call to
// call.
template <class F>
at::Tensor routed(const char* operation, tuning::Pass pass, Library usual, int libraries,
                  int64_t rows, int64_t in, int64_t out, const char* more, const F& run) {
  const auto options = tuning::active(pass);
  if (!options || !has_onednn()) return run(usual);
  const tuning::Question question{
      operation,
      fmt::format("{} rows, {} to {} channels{}, {} threads",
                  std::bit_ceil(static_cast<uint64_t>(rows)), in, out, more, at::get_num_threads()),
      std::vector<std::string>(kNames, kNames + libraries)};
  const auto run_one = [&](std::size_t i) { return run(static_cast<Library>(i)); };
  return run_one(tuning::fastest(question, *options, run_one));
}

}  // namespace

bool has_onednn() {
  return onednn_operator().has_value();
}

Routes default_routes() {
  if (!has_onednn()) return {Library::aten, Library::aten, Library::aten};
  if (made_by_amd() && cpu_level() == CpuLevel::avx512)
    return {Library::onednn, Library::onednn, Library::own};
  return {Library::onednn, Library::aten, Library::aten};
}

at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Activation activation, Library library) {
  if (library == Library::onednn) return onednn(x, weight, bias, activation);
  const auto y = bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  return activation == Activation::gelu_tanh ? at::gelu(y, "tanh") : y;
}

at::Tensor input_gradient(const at::Tensor& grad_out, const at::Tensor& weight, Library library) {
  return library == Library::onednn ? onednn(grad_out, weight.t(), {}, Activation::none)
                                    : at::mm(grad_out, weight);
}

at::Tensor weight_gradient(const at::Tensor& grad_out, const at::Tensor& x, Library library) {
  if (library == Library::own) return transposed_product(grad_out, x);
  return library == Library::onednn ? onednn(grad_out.t(), x.t(), {}, Activation::none)
                                    : at::mm(grad_out.t(), x);
}

at::Tensor forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Activation activation) {
  const bool gelu = activation == Activation::gelu_tanh;
  // without a bias there is no pass to save
  const auto usual = bias.defined() || gelu ? default_routes().forward : default_routes().input;
  return routed("linear forward", tuning::Pass::forward, usual, 2, x.size(0), x.size(1),
                weight.size(0),
                gelu             ? ", bias, gelu"
                : bias.defined() ? ", bias"
                                 : "",
                [&](Library l) { return forward(x, weight, bias, activation, l); });
}

at::Tensor input_gradient(const at::Tensor& grad_out, const at::Tensor& weight) {
  return routed("linear backward, input", tuning::Pass::backward, default_routes().input, 2,
                grad_out.size(0), weight.size(1), weight.size(0), "",
                [&](Library l) { return input_gradient(grad_out, weight, l); });
}

at::Tensor weight_gradient(const at::Tensor& grad_out, const at::Tensor& x) {
  return routed("linear backward, weight", tuning::Pass::backward, default_routes().weight, 3,
                x.size(0), x.size(1), grad_out.size(1), "",
                [&](Library l) { return weight_gradient(grad_out, x, l); });
}

}  // namespace halcyon::linear_detail
