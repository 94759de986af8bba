// SPDX-License-Identifier: Apache-2.0
#include "halcyon/assimilation/feedback.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/base/netcdf.h"

namespace halcyon::assimilation {

namespace {

template <class T, class Get>
at::Tensor column(const std::vector<FeedbackRow>& rows, at::ScalarType dtype, Get get) {
  auto values = at::empty({static_cast<int64_t>(rows.size())}, dtype);
  auto* out = values.mutable_data_ptr<T>();
  for (const auto& row : rows) *out++ = static_cast<T>(get(row));
  return values;
}

class FeedbackFile {
 public:
  FeedbackFile(NetcdfWriter& file, const std::vector<FeedbackRow>& rows)
      : file_(file), rows_(rows) {}

  template <class Get>
  void time(const std::string& name, const std::string& long_name, Get get) {
    file_.variable(name, at::kLong, {"obs"});
    file_.attribute(name, "long_name", long_name);
    file_.attribute(name, "standard_name", "time");
    file_.attribute(name, "units", "seconds since 1970-01-01 00:00:00");
    file_.attribute(name, "calendar", "standard");
    pending_.emplace_back(name, column<int64_t>(rows_, at::kLong, get));
  }

  template <class Get>
  void place(const std::string& name, const std::string& units, Get get) {
    file_.variable(name, at::kDouble, {"obs"});
    file_.attribute(name, "standard_name", name);
    file_.attribute(name, "units", units);
    pending_.emplace_back(name, column<double>(rows_, at::kDouble, get));
  }

  template <class Get>
  void value(const std::string& name, const std::string& long_name, const std::string& units,
             Get get) {
    file_.variable(name, at::kFloat, {"obs"}, {.fill = 9.96921e36});
    file_.attribute(name, "long_name", long_name);
    file_.attribute(name, "units", units);
    file_.attribute(name, "coordinates", "time latitude longitude station");
    const auto values = column<float>(rows_, at::kFloat, get);
    pending_.emplace_back(name, values.masked_fill(values.isnan(), 9.96921e36));
  }

  void reasons(const std::vector<std::string>& names) {
    file_.variable("reason", at::kInt, {"obs"});
    file_.attribute("reason", "long_name", "why the observation was not used; 0: it was");
    std::vector<int32_t> codes;
    std::string meanings;
    for (std::size_t i = 0; i < names.size(); ++i) {
      codes.push_back(static_cast<int32_t>(i));
      meanings += (i == 0 ? "" : " ") + names[i];
    }
    file_.attribute("reason", "flag_values", codes);
    file_.attribute("reason", "flag_meanings", meanings);
    pending_.emplace_back(
        "reason", column<int32_t>(rows_, at::kInt, [](const FeedbackRow& r) { return r.reason; }));
  }

  void write() {
    for (const auto& [name, values] : pending_) file_.write(name, values);
  }

 private:
  NetcdfWriter& file_;
  const std::vector<FeedbackRow>& rows_;
  std::vector<std::pair<std::string, at::Tensor>> pending_;
};

}  // namespace

FeedbackSummary summary(const std::vector<FeedbackRow>& rows) {
  FeedbackSummary s;
  int64_t counted = 0;
  for (const auto& row : rows) {
    ++s.rows;
    if (row.reason != 0) continue;
    ++s.used;
    if (!row.current || std::isnan(row.analysis)) continue;
    const double corrected = row.value - (std::isnan(row.bias) ? 0 : row.bias);
    const double ob = corrected - row.climatology, oa = corrected - row.analysis;
    s.mean_ob += ob;
    s.mean_oa += oa;
    s.rmse_ob += ob * ob;
    s.rmse_oa += oa * oa;
    ++counted;
  }
  if (counted == 0) return s;
  const auto n = static_cast<double>(counted);
  s.mean_ob /= n;
  s.mean_oa /= n;
  s.rmse_ob = std::sqrt(s.rmse_ob / n);
  s.rmse_oa = std::sqrt(s.rmse_oa / n);
  return s;
}

void write_feedback(const std::filesystem::path& path, const std::vector<FeedbackRow>& rows,
                    const std::string& variable, const std::string& units,
                    const std::vector<std::string>& reasons,
                    const std::vector<std::pair<std::string, std::string>>& attributes) {
  write_netcdf(path, [&](NetcdfWriter& file) {
    file.dimension("obs", static_cast<int64_t>(rows.size()));
    file.attribute("", "Conventions", "CF-1.9");
    file.attribute("", "featureType", "point");
    for (const auto& [name, text] : attributes) file.attribute("", name, text);
    FeedbackFile f(file, rows);
    f.time("time", "time of the observation", [](const FeedbackRow& r) { return r.time; });
    f.time("analysis_time", "time of the analysis",
           [](const FeedbackRow& r) { return r.analysis_time; });
    f.place("latitude", "degrees_north", [](const FeedbackRow& r) { return r.lat; });
    f.place("longitude", "degrees_east", [](const FeedbackRow& r) { return r.lon; });
    const auto corrected = [](const FeedbackRow& r) {
      return r.value - (std::isnan(r.bias) ? 0 : r.bias);
    };
    f.value(variable, "observed value as reported", units,
            [](const FeedbackRow& r) { return r.value; });
    f.value("bias", "bias that was taken off", units, [](const FeedbackRow& r) { return r.bias; });
    f.value("error_sd", "assumed error standard deviation", units,
            [](const FeedbackRow& r) { return r.error_sd; });
    f.value("climatology", "climatology at the place and time of the observation", units,
            [](const FeedbackRow& r) { return r.climatology; });
    f.value("analysis", "analysis at the place", units,
            [](const FeedbackRow& r) { return r.analysis; });
    f.value("ob", "corrected observation minus climatology", units,
            [&](const FeedbackRow& r) { return corrected(r) - r.climatology; });
    f.value("oa", "corrected observation minus analysis", units,
            [&](const FeedbackRow& r) { return corrected(r) - r.analysis; });
    f.reasons(reasons);
    file.string_variable("station", {"obs"});
    file.attribute("station", "long_name", "station name");
    std::vector<std::string> stations;
    stations.reserve(rows.size());
    for (const auto& row : rows) stations.push_back(row.station);
    f.write();
    file.write_strings("station", stations);
  });
}

}  // namespace halcyon::assimilation
