// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/tuning/autotuner.h"

#include <torch/csrc/Exceptions.h>

#include "python/bindings.h"

namespace py = pybind11;

namespace halcyon::python {

void add_autotuner(py::module_& m) {
  auto sub = m.def_submodule("autotuner");
  // torch's warnings become Python's
  using Warnings = py::call_guard<torch::PyWarningHandler>;
  sub.def(
      "use_autotuner",
      [](bool forward_pass, bool backward_pass, bool thorough_forward, bool thorough_backward,
         int64_t warmup_forward, int64_t warmup_backward, int64_t steps_forward,
         int64_t steps_backward) {
        use_autotuner({forward_pass, thorough_forward, warmup_forward, steps_forward},
                      {backward_pass, thorough_backward, warmup_backward, steps_backward});
      },
      Warnings());
  sub.def("disable_autotuner", &disable_autotuner);
  sub.def("is_autotuner_enabled", &is_autotuner_enabled);
  sub.def("is_autotuner_enabled_for_forward", &is_autotuner_enabled_for_forward);
  sub.def("is_autotuner_enabled_for_backward", &is_autotuner_enabled_for_backward);
}

}  // namespace halcyon::python
