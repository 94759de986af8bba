// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/extension.h>

// One function a topic; each adds its names to the extension module halcyon._C.
namespace halcyon::python {

// Python threads may run while C++ computes.
using Unlocked = pybind11::call_guard<pybind11::gil_scoped_release>;

void add_operators(pybind11::module_& m);
void add_neighborhood(pybind11::module_& m);
void add_autotuner(pybind11::module_& m);
void add_layers(pybind11::module_& modules);
void add_models(pybind11::module_& modules);
void add_context(pybind11::module_& modules);
void add_healpix(pybind11::module_& m);
void add_features(pybind11::module_& m);
void add_checkpoints(pybind11::module_& m);
void add_parallel(pybind11::module_& m);
void add_parallel_data(pybind11::module_& parallel_submodule);
void add_parallel_norms(pybind11::module_& parallel_submodule);
void add_parallel_reshard(pybind11::module_& parallel_submodule);
void add_parallel_attention(pybind11::module_& m);
void add_parallel_operators(pybind11::module_& parallel);

}  // namespace halcyon::python
