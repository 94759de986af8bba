// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/healpix.h"

#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;
using healpix::parse_order;

void add_healpix(py::module_& module) {
  auto m = module.def_submodule("healpix", "Pixels of the HEALPix sphere.");
  m.def("npix", &healpix::npix, py::arg("level"));
  m.def(
      "ang2pix",
      [](int level, const at::Tensor& lon, const at::Tensor& lat, const std::string& order,
         const std::string& rule) {
        return healpix::ang2pix(level, lon, lat, parse_order(order), healpix::parse_rule(rule));
      },
      py::arg("level"), py::arg("lon"), py::arg("lat"), py::arg("order") = "pad_xy",
      py::arg("rule") = "standard",
      "The pixel that holds each point (degrees). The rule \"standard\" is right at every border "
      "and "
      "pole; \"healda\" gives the pixels of the released HealDA models' data pipe, which on "
      "borders "
      "of faces may be far away.");
  m.def(
      "pix2ang",
      [](int level, const at::Tensor& pix, const std::string& order) {
        return healpix::pix2ang(level, pix, parse_order(order));
      },
      py::arg("level"), py::arg("pix"), py::arg("order") = "pad_xy");
  m.def(
      "convert",
      [](int level, const at::Tensor& pix, const std::string& from, const std::string& to) {
        return healpix::convert(level, pix, parse_order(from), parse_order(to));
      },
      py::arg("level"), py::arg("pix"), py::arg("from_order"), py::arg("to_order"));
  m.def("nest_of_padxy", &healpix::nest_of_padxy, py::arg("level"));
  m.def(
      "reorder",
      [](const at::Tensor& data, const std::string& from, const std::string& to, int64_t dim) {
        return healpix::reorder(data, parse_order(from), parse_order(to), dim);
      },
      py::arg("data"), py::arg("from_order"), py::arg("to_order"), py::arg("dim") = -1);
  m.def(
      "parent",
      [](int level, const at::Tensor& pix, int up, const std::string& order) {
        return healpix::parent(level, pix, up, parse_order(order));
      },
      py::arg("level"), py::arg("pix"), py::arg("up") = 1, py::arg("order") = "pad_xy");
  m.def(
      "neighbours",
      [](int level, const at::Tensor& pix, const std::string& order) {
        return healpix::neighbours(level, pix, parse_order(order));
      },
      py::arg("level"), py::arg("pix"), py::arg("order") = "pad_xy");
}

}  // namespace halcyon::python
