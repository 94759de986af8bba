// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/attention.h"

#include "halcyon/parallel/gather_index.h"
#include "halcyon/parallel/healpix_pad.h"
#include "halcyon/parallel/neighborhood.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using parallel::Group;
using py::arg;

namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;
using Numbers = std::vector<int64_t>;
using MaybeTensor = std::optional<at::Tensor>;

template <auto kOperation>
Pair attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
            Numbers kernel_size, Numbers dilation, Numbers stride, Numbers is_causal,
            Numbers periodic, MaybeTensor rpb, std::optional<double> scale,
            MaybeTensor additional_keys, MaybeTensor additional_values, std::string backend,
            int64_t shard_dim, const Group& group) {
  auto result =
      kOperation(query, key, value,
                 NeighborhoodOptions{std::move(kernel_size), std::move(dilation), std::move(stride),
                                     std::move(is_causal), std::move(periodic), std::move(rpb),
                                     scale, std::move(additional_keys),
                                     std::move(additional_values), std::move(backend)},
                 shard_dim, group);
  return {std::move(result.out), std::move(result.lse)};
}

}  // namespace

void add_parallel_attention(py::module_& m) {
  m.def("gather_index", &parallel::gather_index, arg("x"), arg("index"), arg("dim"), arg("group"),
        Unlocked());
  m.def("healpix_pad", &parallel::healpix_pad, arg("x"), arg("padding"), arg("group"), Unlocked());
  m.def("na1d", &attend<parallel::na1d>, Unlocked());
  m.def("na2d", &attend<parallel::na2d>, Unlocked());
  m.def("na3d", &attend<parallel::na3d>, Unlocked());
  m.def(
      "neighborhood_attention_healpix",
      [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t level,
         std::optional<double> radius_deg, std::optional<int64_t> rings, const std::string& order,
         const MaybeTensor& region, std::optional<double> scale, const Group& group) {
        return parallel::neighborhood_attention_healpix(
            q, k, v, {level, radius_deg, rings, healpix::parse_order(order), region}, scale, group);
      },
      Unlocked());
  m.def("scaled_dot_product_attention", &parallel::scaled_dot_product_attention, arg("query"),
        arg("key"), arg("value"), arg("is_causal"), arg("scale"), arg("dim"), arg("group"),
        Unlocked());
}

}  // namespace halcyon::python
