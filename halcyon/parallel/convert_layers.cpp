// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/convert_layers.h"

#include <fmt/format.h>
#include <torch/enum.h>

#include <algorithm>
#include <cctype>
#include <sstream>
#include <vector>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/convert_reasons.h"
#include "halcyon/parallel/interpolate.h"
#include "halcyon/parallel/norms.h"
#include "halcyon/parallel/pool.h"

namespace halcyon::parallel {
namespace {

namespace nn = torch::nn;

// What a layer's forward is told besides x.
struct Call {
  const Group& group;
  int64_t dim;
  bool is_training;
};

std::optional<at::Tensor> if_any(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

template <size_t N>
std::vector<int64_t> numbers(const torch::ExpandingArray<N>& array) {
  return {array->begin(), array->end()};
}

// "zeros" of torch::kZeros.
template <typename Option>
std::string word_of(const Option& option) {
  auto word = torch::enumtype::get_enum_name(option).substr(1);
  word[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(word[0])));
  return word;
}

template <size_t N>
Padding padding_of(const nn::detail::conv_padding_t<N>& padding) {
  if (const auto* given = std::get_if<torch::ExpandingArray<N>>(&padding)) {
    return PerAxis(numbers(*given));
  }
  return std::string(std::holds_alternative<torch::enumtype::kSame>(padding) ? "same" : "valid");
}

template <size_t N, typename Layer>
at::Tensor run(const nn::ConvNdImpl<N, Layer>& layer, const at::Tensor& x, const Call& call) {
  const auto& o = layer.options;
  return conv(x, layer.weight, if_any(layer.bias), numbers(o.stride()), padding_of<N>(o.padding()),
              numbers(o.dilation()), o.groups(), word_of(o.padding_mode()), call.dim, call.group);
}

template <size_t N, typename Layer>
at::Tensor run(const nn::ConvTransposeNdImpl<N, Layer>& layer, const at::Tensor& x,
               const Call& call) {
  const auto& o = layer.options;
  HALCYON_CHECK(word_of(o.padding_mode()) == "zeros", "convert",
                "expected a transposed convolution with padding_mode \"zeros\", got \"{}\"",
                word_of(o.padding_mode()));
  return conv_transpose(x, layer.weight, if_any(layer.bias), numbers(o.stride()),
                        numbers(std::get<torch::ExpandingArray<N>>(o.padding())),
                        numbers(o.output_padding()), o.groups(), numbers(o.dilation()), call.dim,
                        call.group);
}

template <size_t N, typename Layer>
at::Tensor run(const nn::MaxPoolImpl<N, Layer>& layer, const at::Tensor& x, const Call& call) {
  const auto& o = layer.options;
  return pool(x, numbers(o.kernel_size()), PerAxis(numbers(o.stride())), numbers(o.padding()),
              numbers(o.dilation()), "max", o.ceil_mode(), true, call.dim, call.group);
}

template <typename Layer>
bool has_own_divisor(const Layer& layer) {
  if constexpr (requires { layer.options.divisor_override(); }) {
    return layer.options.divisor_override().has_value();
  }
  return false;
}

template <size_t N, typename Layer>
at::Tensor run(const nn::AvgPoolImpl<N, Layer>& layer, const at::Tensor& x, const Call& call) {
  const auto& o = layer.options;
  HALCYON_CHECK(!has_own_divisor(static_cast<const Layer&>(layer)), "convert",
                "expected an average pooling without divisor_override, got one on a sharded axis");
  return pool(x, numbers(o.kernel_size()), PerAxis(numbers(o.stride())), numbers(o.padding()), 1,
              "avg", o.ceil_mode(), o.count_include_pad(), call.dim, call.group);
}

at::Tensor run(const nn::UpsampleImpl& layer, const at::Tensor& x, const Call& call) {
  const auto& o = layer.options;
  return interpolate(x, o.size(), o.scale_factor(), word_of(o.mode()), o.align_corners(), call.dim,
                     call.group);
}

at::Tensor run(const nn::GroupNormImpl& layer, const at::Tensor& x, const Call& call) {
  return group_norm(x, layer.options.num_groups(), if_any(layer.weight), if_any(layer.bias),
                    layer.options.eps(), call.dim, call.group);
}

at::Tensor run(const nn::LayerNormImpl& layer, const at::Tensor& x, const Call& call) {
  return layer_norm(x, layer.options.normalized_shape(), if_any(layer.weight), if_any(layer.bias),
                    layer.options.eps(), call.dim, call.group);
}

template <size_t N, typename Layer>
at::Tensor run(const nn::BatchNormImplBase<N, Layer>& layer, const at::Tensor& x,
               const Call& call) {
  constexpr int64_t axes = N + 2;
  HALCYON_CHECK(x.defined() && (x.dim() == axes || (N == 1 && x.dim() == 2)), "convert",
                "expected x of {}{} axes for BatchNorm{}d, got {}", N == 1 ? "2 or " : "", axes, N,
                describe(x));
  const auto& o = layer.options;
  auto momentum = o.momentum().value_or(0.0);
  if (call.is_training && o.track_running_stats() && layer.num_batches_tracked.defined()) {
    layer.num_batches_tracked.add_(1);
    // none is the mean of all batches
    if (!o.momentum()) momentum = 1.0 / layer.num_batches_tracked.template item<double>();
  }
  return batch_norm(x, if_any(layer.running_mean), if_any(layer.running_var), if_any(layer.weight),
                    if_any(layer.bias), call.is_training || !o.track_running_stats(), momentum,
                    o.eps(), call.group);
}

// The spatial axes of a layer whose sharded axis must be one of them; else 0.
template <size_t N, typename Layer>
constexpr int64_t spatial_axes(const nn::ConvNdImpl<N, Layer>*) {
  return N;
}
template <size_t N, typename Layer>
constexpr int64_t spatial_axes(const nn::MaxPoolImpl<N, Layer>*) {
  return N;
}
template <size_t N, typename Layer>
constexpr int64_t spatial_axes(const nn::AvgPoolImpl<N, Layer>*) {
  return N;
}
constexpr int64_t spatial_axes(const nn::Module*) {
  return 0;
}

template <size_t N, typename Layer>
bool is_pointwise(const nn::ConvNdImpl<N, Layer>& layer) {
  const auto& o = layer.options;
  const auto all = [](const torch::ExpandingArray<N>& array, int64_t value) {
    return std::all_of(array->begin(), array->end(), [&](int64_t one) { return one == value; });
  };
  const auto* padding = std::get_if<torch::ExpandingArray<N>>(&o.padding());
  return all(o.kernel_size(), 1) && all(o.stride(), 1) && (!padding || all(*padding, 0)) &&
         all(o.output_padding(), 0);
}
bool is_pointwise(const nn::Module&) {
  return false;
}

// torch refuses an x without rows, which a rank may have.
template <typename Layer>
at::Tensor run_pointwise(Layer& layer, const at::Tensor& x, int64_t axes) {
  auto padded = x;
  std::vector<int64_t> empty;
  for (int64_t axis = std::max<int64_t>(x.dim() - axes, 0); axis < x.dim(); ++axis) {
    if (x.size(axis) == 0) empty.push_back(axis);
    padded = with_at_least(padded, axis, 1);
  }
  auto out = layer.forward(padded);
  for (const auto axis : empty) out = out.narrow(axis, 0, 0);
  return out;
}

}  // namespace

template <typename Layer>
DomainParallel<Layer>::DomainParallel(std::shared_ptr<Layer> layer)
    : nn::Cloneable<DomainParallel>("DomainParallel" + convert_detail::class_of(typeid(Layer))),
      layer_(std::move(layer)) {
  HALCYON_CHECK(layer_, "convert", "expected a layer, got none");
  take_over();
  this->train(layer_->is_training());
}

template <typename Layer>
void DomainParallel<Layer>::take_over() {
  for (const auto& parameter : layer_->named_parameters(/*recurse=*/false)) {
    this->register_parameter(parameter.key(), parameter.value(), parameter->requires_grad());
  }
  for (const auto& buffer : layer_->named_buffers(/*recurse=*/false)) {
    this->register_buffer(buffer.key(), buffer.value());
  }
}

// The layer is the original's until here: clone() has copied the members, and copies the values
// into what this registers.
template <typename Layer>
void DomainParallel<Layer>::reset() {
  const auto originals = layer_->named_parameters(/*recurse=*/false);
  layer_ = std::dynamic_pointer_cast<Layer>(layer_->clone());
  for (auto& parameter : layer_->named_parameters(/*recurse=*/false)) {
    parameter->set_requires_grad(originals[parameter.key()].requires_grad());  // clone() forgets it
  }
  take_over();
}

template <typename Layer>
at::Tensor DomainParallel<Layer>::forward(const at::Tensor& x) {
  constexpr auto axes = spatial_axes(static_cast<const Layer*>(nullptr));
  if (is_pointwise(*layer_)) return run_pointwise(*layer_, x, axes);
  const auto sharding = sharding_ ? *sharding_ : Sharding{Group(), axes == 1 ? -1 : -2};
  return run(*layer_, x, {sharding.group, sharding.dim, this->is_training()});
}

template <typename Layer>
std::string DomainParallel<Layer>::why_not(int64_t dim) const {
  if (is_pointwise(*layer_)) return convert_detail::kPointwise;
  if (has_own_divisor(*layer_)) {
    return fmt::format("{} (divisor_override)", convert_detail::kNotKnown);
  }
  constexpr auto axes = spatial_axes(static_cast<const Layer*>(nullptr));
  if (axes > 0 && dim < -axes) {
    return fmt::format("{} (dim {} is no spatial axis of {})", convert_detail::kNotKnown, dim,
                       convert_detail::class_of(typeid(Layer)));
  }
  return "";
}

template <typename Layer>
void DomainParallel<Layer>::pretty_print(std::ostream& stream) const {
  std::ostringstream of_layer;
  layer_->pretty_print(of_layer);
  auto text = of_layer.str();
  text.replace(0, text.find('('), this->name());
  if (sharding_) text.insert(text.size() - 1, fmt::format(", sharded dim={}", sharding_->dim));
  stream << text;
}

template class DomainParallel<nn::Conv1dImpl>;
template class DomainParallel<nn::Conv2dImpl>;
template class DomainParallel<nn::Conv3dImpl>;
template class DomainParallel<nn::ConvTranspose1dImpl>;
template class DomainParallel<nn::ConvTranspose2dImpl>;
template class DomainParallel<nn::ConvTranspose3dImpl>;
template class DomainParallel<nn::MaxPool1dImpl>;
template class DomainParallel<nn::MaxPool2dImpl>;
template class DomainParallel<nn::MaxPool3dImpl>;
template class DomainParallel<nn::AvgPool1dImpl>;
template class DomainParallel<nn::AvgPool2dImpl>;
template class DomainParallel<nn::AvgPool3dImpl>;
template class DomainParallel<nn::UpsampleImpl>;
template class DomainParallel<nn::GroupNormImpl>;
template class DomainParallel<nn::LayerNormImpl>;
template class DomainParallel<nn::BatchNorm1dImpl>;
template class DomainParallel<nn::BatchNorm2dImpl>;
template class DomainParallel<nn::BatchNorm3dImpl>;

}  // namespace halcyon::parallel
