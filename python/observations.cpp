// SPDX-License-Identifier: Apache-2.0
// PixelGroupMap and ObsContext as Python classes with plain attributes.
#include "halcyon/base/error.h"
#include "halcyon/ops/pixel_attention/obs_context.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;

namespace {

struct Target {
  std::optional<at::Device> device;
  std::optional<at::ScalarType> dtype;
};

// .to(device=None, dtype=None): a dtype alone may stand first.
Target target(const py::object& device, const py::object& dtype) {
  Target to;
  if (THPDtype_Check(device.ptr())) {
    HALCYON_CHECK(dtype.is_none(), "to", "expected one dtype, got two");
    to.dtype = device.cast<at::ScalarType>();
  } else if (py::isinstance<py::str>(device)) {
    to.device = at::Device(device.cast<std::string>());
  } else if (!device.is_none()) {
    to.device = device.cast<at::Device>();
  }
  if (!dtype.is_none()) to.dtype = dtype.cast<at::ScalarType>();
  return to;
}

template <class T>
T moved(const T& self, const py::object& device, const py::object& dtype, bool non_blocking) {
  const auto to = target(device, dtype);
  return self.to(to.device, to.dtype, non_blocking);
}

// Pickling and copying, as a data loader's workers do: the class and its constructor's arguments.
template <std::size_t N>
auto reduce_by(const char* const (&names)[N]) {
  return [&names](const py::object& self) {
    py::tuple arguments(N);
    for (std::size_t i = 0; i < N; ++i) arguments[i] = self.attr(names[i]);
    return py::make_tuple(py::type::of(self), arguments);
  };
}

constexpr const char* kGroupMap[] = {"program_ptr", "program_pixels"};
constexpr const char* kContext[] = {"obs",      "float_metadata", "obs_type",     "channel",
                                    "platform", "cu_seqlens_k",   "max_seqlen_k", "group_map"};

}  // namespace

void add_observation_classes(py::module_& m) {
  py::class_<PixelGroupMap>(m, "PixelGroupMap",
                            "Which pixels each program works on: program_ptr, program_pixels.")
      .def(py::init<at::Tensor, at::Tensor>(), py::arg("program_ptr"), py::arg("program_pixels"))
      .def_readwrite("program_ptr", &PixelGroupMap::program_ptr)
      .def_readwrite("program_pixels", &PixelGroupMap::program_pixels)
      .def("__reduce__", reduce_by(kGroupMap))
      .def("to", &moved<PixelGroupMap>, py::arg("device") = py::none(),
           py::arg("dtype") = py::none(), py::arg("non_blocking") = true);
  py::class_<ObsContext>(m, "ObsContext", "The observations of one model call, sorted by pixel.")
      .def(py::init<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, int64_t,
                    std::optional<PixelGroupMap>>(),
           py::arg("obs"), py::arg("float_metadata"), py::arg("obs_type"), py::arg("channel"),
           py::arg("platform"), py::arg("cu_seqlens_k"), py::arg("max_seqlen_k"),
           py::arg("group_map") = py::none())
      .def_readwrite("obs", &ObsContext::obs)
      .def_readwrite("float_metadata", &ObsContext::float_metadata)
      .def_readwrite("obs_type", &ObsContext::obs_type)
      .def_readwrite("channel", &ObsContext::channel)
      .def_readwrite("platform", &ObsContext::platform)
      .def_readwrite("cu_seqlens_k", &ObsContext::cu_seqlens_k)
      .def_readwrite("max_seqlen_k", &ObsContext::max_seqlen_k)
      .def_readwrite("group_map", &ObsContext::group_map)
      .def("__reduce__", reduce_by(kContext))
      .def("to", &moved<ObsContext>, py::arg("device") = py::none(), py::arg("dtype") = py::none(),
           py::arg("non_blocking") = true);
}

}  // namespace halcyon::python
