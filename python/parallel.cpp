// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/rows.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using parallel::Fold;
using parallel::Group;
using py::arg;

namespace {

using Sign = std::variant<double, at::Tensor>;

void add_rows(py::module_& m) {
  m.def(
      "gather_rows",
      [](const at::Tensor& x, int64_t lo, int64_t hi, int64_t dim, const Group& group,
         const std::string& edge, int64_t fold_dim, const std::optional<Group>& fold_group,
         const Sign& fold_sign) {
        return parallel::gather_rows(x, lo, hi, dim, group, edge,
                                     {fold_dim, fold_group, fold_sign});
      },
      arg("x"), arg("lo"), arg("hi"), arg("dim"), arg("group"), arg("edge"), arg("fold_dim"),
      arg("fold_group"), arg("fold_sign"), Unlocked());
  m.def(
      "halo_exchange",
      [](const at::Tensor& x, std::pair<int64_t, int64_t> halo_width, int64_t dim,
         const Group& group, const std::string& edge, int64_t fold_dim,
         const std::optional<Group>& fold_group, const Sign& fold_sign) {
        return parallel::halo_exchange(x, {halo_width.first, halo_width.second}, dim, group, edge,
                                       {fold_dim, fold_group, fold_sign});
      },
      arg("x"), arg("halo_width"), arg("dim"), arg("group"), arg("edge"), arg("fold_dim"),
      arg("fold_group"), arg("fold_sign"), Unlocked());
  m.def("trim", &parallel::trim, arg("x"), arg("halo_before"), arg("halo_after"), arg("dim"));
}

}  // namespace

void add_parallel(py::module_& parent) {
  auto m = parent.def_submodule("parallel");
  m.def(
      "split_sizes", [](int64_t n, const Group& group) { return parallel::split_sizes(n, group); },
      arg("n"), arg("group"));
  m.def("traffic", [] {
    const auto [messages, bytes] = parallel::traffic();
    return std::pair(messages, bytes);
  });
  // What Python finds wrong with this rank's arguments, on every rank.
  m.def(
      "refuse",
      [](const std::string& operation, const std::string& what, const Group& group) {
        parallel::Agreement agreement(group, operation);
        agreement.prepare([&] { throw Error(ErrorKind::argument, what); });
        agreement.post();
        agreement.finish();
      },
      arg("operation"), arg("what"), arg("group"), Unlocked());
  add_rows(m);
  add_parallel_data(m);
  add_parallel_reshard(m);
  add_parallel_attention(m);
  add_parallel_operators(m);
  add_parallel_norms(m);
}

}  // namespace halcyon::python
