// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/extension.h>

// One function a topic; each adds its names to the extension module halcyon._C.
namespace halcyon::python {

void add_module_handle(pybind11::module_& m);
void add_operators(pybind11::module_& m);
void add_observation_classes(pybind11::module_& m);
void add_neighborhood(pybind11::module_& m);
void add_autotuner(pybind11::module_& m);
void add_layers(pybind11::module_& m);
void add_models(pybind11::module_& m);
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
