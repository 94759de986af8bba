// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/error.h"
#include "python/bindings.h"

namespace {

PyObject* exception_of(halcyon::ErrorKind kind) {
  if (kind == halcyon::ErrorKind::argument) return PyExc_ValueError;
  if (kind == halcyon::ErrorKind::unsupported) return PyExc_NotImplementedError;
  return PyExc_RuntimeError;  // files, configurations, numerics
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const halcyon::Error& e) {
    PyErr_SetString(exception_of(e.kind()), e.what());
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  namespace python = halcyon::python;
  m.doc() = "Halcyon's C++ side; import halcyon instead.";
  pybind11::register_exception_translator(&translate);
  python::add_operators(m);
  python::add_neighborhood(m);
  python::add_autotuner(m);
  auto modules =
      m.def_submodule("modules", "The C++ modules: what checks the Python ones' arguments.");
  python::add_layers(modules);
  python::add_models(modules);
  python::add_context(modules);
  python::add_healpix(m);
  python::add_features(m);
  python::add_checkpoints(m);
  python::add_parallel(m);
}
