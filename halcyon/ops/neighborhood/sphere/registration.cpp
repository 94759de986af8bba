// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/ops/neighborhood/sphere/operators.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"

// torch.ops.halcyon.neighborhood_attention_healpix, and the two inner operators between which
// autograd stands.
namespace halcyon {
namespace {

using neighborhood::PixelWindow;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<at::Tensor>;

PixelWindow window_of(const MaybeTensor& region, int64_t level, std::optional<double> radius_deg,
                      std::optional<int64_t> rings, int64_t order) {
  return {static_cast<int>(level), radius_deg, rings, static_cast<healpix::Order>(order), region};
}

std::shared_ptr<const neighborhood::PixelLists> lists_of(PixelWindow window) {
  if (window.region) window.region = window.region->cpu();
  return neighborhood::pixel_lists(window);
}

std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const MaybeTensor& region,
                                           int64_t level, std::optional<double> radius_deg,
                                           std::optional<int64_t> rings, int64_t order,
                                           double scale) {
  const auto lists = lists_of(window_of(region, level, radius_deg, rings, order));
  const auto output = neighborhood::sphere_forward({q, k, v, lists.get(), scale});
  return {output.out, output.lse};
}

std::tuple<at::Tensor, at::Tensor> forward_meta(const at::Tensor& q, const at::Tensor& /*k*/,
                                                const at::Tensor& v, const MaybeTensor& /*region*/,
                                                int64_t /*level*/, std::optional<double> /*radius*/,
                                                std::optional<int64_t> /*rings*/, int64_t /*order*/,
                                                double /*scale*/) {
  auto shape = q.sym_sizes().vec();
  shape.back() = v.sym_size(-1);
  auto out = at::empty_symint(shape, q.options());
  shape.pop_back();
  const auto type = neighborhood::accumulate_type(q);
  return {std::move(out), at::empty_symint(shape, q.options().dtype(type))};
}

using ThreeTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

ThreeTensors backward(const at::Tensor& grad_out, const at::Tensor& q, const at::Tensor& k,
                      const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                      const MaybeTensor& region, int64_t level, std::optional<double> radius_deg,
                      std::optional<int64_t> rings, int64_t order, double scale) {
  const auto lists = lists_of(window_of(region, level, radius_deg, rings, order));
  const auto delta = neighborhood::delta_of({out, lse}, grad_out, {});
  auto grad = neighborhood::sphere_backward({q, k, v, lists.get(), scale}, lse, grad_out, delta);
  return {grad.query, grad.key, grad.value};
}

ThreeTensors backward_meta(const at::Tensor& /*grad_out*/, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v, const at::Tensor& /*out*/,
                           const at::Tensor& /*lse*/, const MaybeTensor& /*region*/,
                           int64_t /*level*/, std::optional<double> /*radius*/,
                           std::optional<int64_t> /*rings*/, int64_t /*order*/, double /*scale*/) {
  const auto like = [](const at::Tensor& t) {
    return at::empty_symint(t.sym_sizes(), t.options());
  };
  return {like(q), like(k), like(v)};
}

struct SphereAttention : torch::autograd::Function<SphereAttention> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const MaybeTensor& region, int64_t level,
                               std::optional<double> radius_deg, std::optional<int64_t> rings,
                               int64_t order, double scale) {
    static const auto op =
        operator_named<decltype(halcyon::forward)>("halcyon::_neighborhood_healpix");
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, lse] = op.call(q, k, v, region, level, radius_deg, rings, order, scale);
    context->save_for_backward({q, k, v, out, lse, region.value_or(at::Tensor())});
    context->saved_data["level"] = level;
    context->saved_data["radius_deg"] = radius_deg;
    context->saved_data["rings"] = rings;
    context->saved_data["order"] = order;
    context->saved_data["scale"] = scale;
    context->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* context, variable_list grad) {
    check_first_derivative("neighborhood_attention_healpix");
    static const auto op =
        operator_named<decltype(halcyon::backward)>("halcyon::_neighborhood_healpix_backward");
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    auto [q, k, v] =
        op.call(grad[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                saved[5].defined() ? MaybeTensor(saved[5]) : std::nullopt, data["level"].toInt(),
                data["radius_deg"].toOptional<double>(), data["rings"].toOptional<int64_t>(),
                data["order"].toInt(), data["scale"].toDouble());
    return {q, k, v, {}, {}, {}, {}, {}, {}};
  }
};

std::tuple<at::Tensor, at::Tensor> forward_autograd(const at::Tensor& q, const at::Tensor& k,
                                                    const at::Tensor& v, const MaybeTensor& region,
                                                    int64_t level, std::optional<double> radius_deg,
                                                    std::optional<int64_t> rings, int64_t order,
                                                    double scale) {
  const auto result =
      SphereAttention::apply(q, k, v, region, level, radius_deg, rings, order, scale);
  return {result[0], result[1]};
}

at::Tensor public_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t level, std::optional<double> radius_deg,
                           std::optional<int64_t> rings, c10::string_view order,
                           const MaybeTensor& region, std::optional<double> scale) {
  return neighborhood_attention_healpix(
      q, k, v, {level, radius_deg, rings, healpix::parse_order(order), region}, scale);
}

}  // namespace

namespace neighborhood {

at::Tensor sphere_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const PixelWindow& window, double scale) {
  HALCYON_CHECK_KIND(!under_transform(), unsupported, "neighborhood_attention_healpix",
                     "expected no transform of torch.func, got one");
  if (has_tangent(q) || has_tangent(k) || has_tangent(v) || !(q.is_cpu() || q.is_meta())) {
    const auto lists = lists_of(window);
    return sphere_reference({q, k, v, lists.get(), scale}).out;
  }
  static const auto op = operator_named<decltype(forward)>("halcyon::_neighborhood_healpix");
  return std::get<0>(op.call(q, k, v, window.region, window.level, window.radius_deg, window.rings,
                             static_cast<int64_t>(window.order), scale));
}

}  // namespace neighborhood

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  m.def(
      "neighborhood_attention_healpix(Tensor q, Tensor k, Tensor v, int level, "
      "float? radius_deg=None, int? rings=None, str order=\"nest\", Tensor? region=None, "
      "float? scale=None) -> Tensor",
      torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(public_operator)));
  m.def(
      "_neighborhood_healpix(Tensor q, Tensor k, Tensor v, Tensor? region, int level, "
      "float? radius_deg, int? rings, int order, float scale) -> (Tensor, Tensor)");
  m.def(
      "_neighborhood_healpix_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor lse, Tensor? region, int level, float? radius_deg, int? rings, int order, "
      "float scale) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(halcyon, CPU, m) {
  m.impl("_neighborhood_healpix", TORCH_FN(forward));
  m.impl("_neighborhood_healpix_backward", TORCH_FN(backward));
}

TORCH_LIBRARY_IMPL(halcyon, Meta, m) {
  m.impl("_neighborhood_healpix", TORCH_FN(forward_meta));
  m.impl("_neighborhood_healpix_backward", TORCH_FN(backward_meta));
}

TORCH_LIBRARY_IMPL(halcyon, Autograd, m) {
  m.impl("_neighborhood_healpix", TORCH_FN(forward_autograd));
}

}  // namespace halcyon
