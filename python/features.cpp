// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/features.h"

#include "halcyon/obs/quality_control.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;
using py::arg;

void add_features(py::module_& m) {
  m.def(
      "float_metadata",
      [](const at::Tensor& target_time_sec, const at::Tensor& time_ns, const at::Tensor& lon,
         const at::Tensor& lat, const at::Tensor& height, const at::Tensor& pressure,
         const at::Tensor& scan_angle, const at::Tensor& sat_zenith_angle,
         const at::Tensor& sol_zenith_angle, int64_t layout) {
        return obs::float_metadata({target_time_sec, time_ns, lon, lat, height, pressure,
                                    scan_angle, sat_zenith_angle, sol_zenith_angle},
                                   layout);
      },
      py::kw_only(), arg("target_time_sec"), arg("time_ns"), arg("lon"), arg("lat"), arg("height"),
      arg("pressure"), arg("scan_angle"), arg("sat_zenith_angle"), arg("sol_zenith_angle"),
      arg("layout") = 30, Unlocked());
  m.def("local_solar_time", &obs::local_solar_time, arg("lon"), arg("time_ns"), Unlocked());
  m.def(
      "quality_control",
      [](const std::map<std::string, at::Tensor>& columns, bool qc_filter,
         bool conv_uv_in_situ_only, bool conv_gps_level1_only) {
        return obs::quality_control(
            columns, obs::ChannelRules{qc_filter, conv_uv_in_situ_only, conv_gps_level1_only});
      },
      arg("columns"), py::kw_only(), arg("qc_filter") = false, arg("conv_uv_in_situ_only") = false,
      arg("conv_gps_level1_only") = false, Unlocked());
  std::vector<std::string> reasons;
  for (const auto name : obs::qc_reasons()) reasons.emplace_back(name);
  m.attr("qc_reasons") = reasons;
}

}  // namespace halcyon::python
