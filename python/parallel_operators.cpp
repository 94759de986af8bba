// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/interpolate.h"
#include "halcyon/parallel/pool.h"
#include "python/bindings.h"
#include "python/group_caster.h"

namespace halcyon::python {
namespace py = pybind11;
using parallel::Group;
using py::arg;

namespace {

using Numbers = std::vector<int64_t>;
using OptionalTensor = std::optional<at::Tensor>;

void add_convolutions(py::module_& m) {
  m.def(
      "conv",
      [](const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
         const Numbers& stride, const std::variant<Numbers, std::string>& padding,
         const Numbers& dilation, int64_t groups, const std::string& padding_mode, int64_t dim,
         const Group& group, const std::optional<std::string>& edge) {
        const auto pads = std::holds_alternative<Numbers>(padding)
                              ? parallel::Padding(parallel::PerAxis(std::get<Numbers>(padding)))
                              : parallel::Padding(std::get<std::string>(padding));
        return parallel::conv(x, weight, bias, stride, pads, dilation, groups, padding_mode, dim,
                              group, edge);
      },
      arg("x"), arg("weight"), arg("bias"), arg("stride"), arg("padding"), arg("dilation"),
      arg("groups"), arg("padding_mode"), arg("dim"), arg("group"), arg("edge"), Unlocked());
  m.def(
      "conv_transpose",
      [](const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
         const Numbers& stride, const Numbers& padding, const Numbers& output_padding,
         int64_t groups, const Numbers& dilation, int64_t dim, const Group& group) {
        return parallel::conv_transpose(x, weight, bias, stride, padding, output_padding, groups,
                                        dilation, dim, group);
      },
      arg("x"), arg("weight"), arg("bias"), arg("stride"), arg("padding"), arg("output_padding"),
      arg("groups"), arg("dilation"), arg("dim"), arg("group"), Unlocked());
}

}  // namespace

void add_parallel_operators(py::module_& m) {
  add_convolutions(m);
  m.def(
      "pool",
      [](const at::Tensor& x, const Numbers& kernel_size, const std::optional<Numbers>& stride,
         const Numbers& padding, const Numbers& dilation, const std::string& mode, bool ceil_mode,
         bool count_include_pad, int64_t dim, const Group& group) {
        std::optional<parallel::PerAxis> steps;
        if (stride) steps = *stride;
        return parallel::pool(x, kernel_size, steps, padding, dilation, mode, ceil_mode,
                              count_include_pad, dim, group);
      },
      arg("x"), arg("kernel_size"), arg("stride"), arg("padding"), arg("dilation"), arg("mode"),
      arg("ceil_mode"), arg("count_include_pad"), arg("dim"), arg("group"), Unlocked());
  m.def("interpolate", &parallel::interpolate, arg("x"), arg("size"), arg("scale_factor"),
        arg("mode"), arg("align_corners"), arg("dim"), arg("group"), Unlocked());
}

}  // namespace halcyon::python
