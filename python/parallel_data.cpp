// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/data_parallel.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using parallel::DataParallel;
using parallel::Group;
using py::arg;

void add_parallel_data(py::module_& m) {
  py::class_<DataParallel>(m, "DataParallel")
      .def(py::init([](const DataParallel::NamedTensors& parameters, const Group& group,
                       int64_t bucket_bytes, bool find_unused_parameters,
                       const std::vector<at::Tensor>& others) {
             return std::make_unique<DataParallel>(
                 parameters, group,
                 parallel::DataParallelOptions{bucket_bytes, find_unused_parameters}, others);
           }),
           arg("parameters"), arg("group"), arg("bucket_bytes"), arg("find_unused_parameters"),
           arg("others"), Unlocked())
      .def("begin_forward", &DataParallel::begin_forward, Unlocked())
      .def_property("sample_count", &DataParallel::sample_count, &DataParallel::set_sample_count)
      .def_property("synchronise", &DataParallel::synchronise, &DataParallel::set_synchronise);
}

}  // namespace halcyon::python
