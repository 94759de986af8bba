// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/norms.h"
#include "halcyon/parallel/reduce_gradients.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using parallel::Group;
using py::arg;

void add_parallel_norms(py::module_& m) {
  m.def("group_norm", &parallel::group_norm, arg("x"), arg("num_groups"), arg("weight"),
        arg("bias"), arg("eps"), arg("dim"), arg("group"), Unlocked());
  m.def(
      "layer_norm",
      [](const at::Tensor& x, const std::vector<int64_t>& normalized_shape,
         const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias, double eps,
         int64_t dim, const Group& group) {
        return parallel::layer_norm(x, normalized_shape, weight, bias, eps, dim, group);
      },
      arg("x"), arg("normalized_shape"), arg("weight"), arg("bias"), arg("eps"), arg("dim"),
      arg("group"), Unlocked());
  m.def("batch_norm", &parallel::batch_norm, arg("x"), arg("running_mean"), arg("running_var"),
        arg("weight"), arg("bias"), arg("training"), arg("momentum"), arg("eps"), arg("group"),
        Unlocked());
  m.def("reduce_gradients", &parallel::reduce_gradients, arg("params"), arg("group"), arg("op"),
        arg("weight"), Unlocked());
}

}  // namespace halcyon::python
