// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/neighborhood.h"

#include <ATen/ATen.h>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/neighborhood/arguments.h"
#include "halcyon/ops/neighborhood/operators.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon {
namespace {

using neighborhood::Inputs;

// What only compositions of ATen operators do: forward-mode derivatives, and devices without
// kernels.
bool needs_composition(const Inputs& in) {
  return has_tangent(in.query) || has_tangent(in.key) || has_tangent(in.value) ||
         has_tangent(in.bias) || has_tangent(in.more_keys) || has_tangent(in.more_values) ||
         !(in.query.is_cpu() || in.query.is_meta());
}

neighborhood::Backend backend_named(const char* operation, const std::string& name) {
  if (name == "reference") return neighborhood::Backend::reference;
  if (name == "gemm") return neighborhood::Backend::gemm;
  if (name == "tiled") return neighborhood::Backend::tiled;
  HALCYON_CHECK(name.empty(), operation, "expected a backend of reference, tiled or gemm, got {}",
                name);
  if (is_tiled_na_enabled()) return neighborhood::Backend::tiled;
  return is_gemm_na_enabled() ? neighborhood::Backend::gemm : neighborhood::Backend::reference;
}

}  // namespace

namespace neighborhood {

AttentionOutput attend(const char* operation, std::size_t rank, const at::Tensor& query,
                       const at::Tensor& key, const at::Tensor& value,
                       const NeighborhoodOptions& options) {
  const auto in = neighborhood::checked_inputs(operation, rank, query, key, value, options);
  const auto backend = backend_named(operation, options.backend);
  const auto output = !needs_composition(in)          ? neighborhood::dispatched(in, backend)
                      : is_plain(in) && !in.more_keys ? neighborhood::compose_plain(in)
                                                      : neighborhood::reference(in);
  return {output.out, output.lse};
}

}  // namespace neighborhood

AttentionOutput na1d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options) {
  return neighborhood::attend("na1d", 1, query, key, value, options);
}
AttentionOutput na2d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options) {
  return neighborhood::attend("na2d", 2, query, key, value, options);
}
AttentionOutput na3d(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const NeighborhoodOptions& options) {
  return neighborhood::attend("na3d", 3, query, key, value, options);
}

AttentionOutput merge_attentions(at::TensorList outputs, at::TensorList lses) {
  constexpr auto kName = "merge_attentions";
  HALCYON_CHECK(outputs.size() >= 2, kName, "expected two or more outputs, got {}", outputs.size());
  HALCYON_CHECK(outputs.size() == lses.size(), kName,
                "expected an lse for each of {} outputs, got {}", outputs.size(), lses.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto &out = outputs[i], &lse = lses[i];
    HALCYON_CHECK(
        out.defined() && at::isFloatingType(out.scalar_type()) && out.dim() >= 4 && out.dim() <= 6,
        kName, "expected outputs of rank 4 to 6 and a floating type, got {}", describe(out));
    HALCYON_CHECK(
        out.sym_sizes() == outputs[0].sym_sizes() && out.scalar_type() == outputs[0].scalar_type(),
        kName, "expected outputs of one shape and dtype, got {} and {}", describe(outputs[0]),
        describe(out));
    HALCYON_CHECK(lse.defined() && at::isFloatingType(lse.scalar_type()) &&
                      lse.sym_sizes() == out.sym_sizes().slice(0, out.dim() - 1),
                  kName, "expected lses of the outputs' shape but for the channels, got {}",
                  describe(lse));
    check_device(out, outputs[0], kName, "every output");
    check_device(lse, outputs[0], kName, "every lse");
  }
  const auto type = neighborhood::accumulate_type(outputs[0]);
  std::vector<at::Tensor> wide;
  for (const auto& lse : lses) wide.push_back(lse.to(type));
  const auto stacked = at::stack(wide);
  const auto lse = at::logsumexp(stacked, 0);
  // where there is no key at all, every lse is -infinity: the result is 0
  const auto weights =
      (stacked - lse.masked_fill(lse == -std::numeric_limits<double>::infinity(), 0)).exp();
  // a part without keys has no result, whatever stands in its place
  const auto part = [&](std::size_t i) {
    const auto n = static_cast<int64_t>(i);
    const auto none = stacked[n] == -std::numeric_limits<double>::infinity();
    return outputs[i].to(type).masked_fill(none.unsqueeze(-1), 0) * weights[n].unsqueeze(-1);
  };
  auto sum = part(0);
  for (std::size_t i = 1; i < outputs.size(); ++i) sum = sum + part(i);
  return {sum.to(outputs[0].scalar_type()), lse};
}

}  // namespace halcyon
