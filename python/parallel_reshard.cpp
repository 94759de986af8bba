// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reshard.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using py::arg;

void add_parallel_reshard(py::module_& m) {
  m.def("shard", &parallel::shard, arg("x"), arg("dim"), arg("group"), Unlocked());
  m.def("gather", &parallel::gather, arg("x"), arg("dim"), arg("group"), arg("sum_grad"),
        Unlocked());
  m.def("shard_x", &parallel::shard_x, arg("x"), arg("group"), Unlocked());
  m.def("shard_t", &parallel::shard_t, arg("x"), arg("group"), Unlocked());
}

}  // namespace halcyon::python
