// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/climatology.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/base/time.h"
#include "halcyon/state/grid_record.h"

namespace halcyon::state {
namespace {

constexpr int64_t kDay = 86400;
constexpr int64_t kHarmonics = 5;

int64_t second_of(int64_t time) {
  return ((time % kDay) + kDay) % kDay;
}

// (T, 5)
at::Tensor harmonics(const std::vector<int64_t>& times, double period) {
  at::Tensor out = at::empty({static_cast<int64_t>(times.size()), kHarmonics}, at::kDouble);
  double* row = out.mutable_data_ptr<double>();
  for (const int64_t time : times) {
    const double phase =
        2 * std::numbers::pi * (std::floor(day_of_year(time)) + 1) / period;  // 1 January is day 1
    *row++ = 1;
    *row++ = std::cos(phase);
    *row++ = std::sin(phase);
    *row++ = std::cos(2 * phase);
    *row++ = std::sin(2 * phase);
  }
  return out;
}

}  // namespace

Climatology::Climatology(std::vector<Variable> variables, Grid grid, std::vector<int64_t> hours,
                         double period, at::Tensor coefficients)
    : variables_(std::move(variables)),
      grid_(std::move(grid)),
      hours_(std::move(hours)),
      period_(period),
      coefficients_(std::move(coefficients)) {}

Climatology Climatology::fit(const Fields& fields, const std::vector<int64_t>& times,
                             double period) {
  constexpr const char* operation = "Climatology::fit";
  check(fields, operation);
  HALCYON_CHECK(!fields.is_static() && !times.empty(), operation,
                "expected fields with times and some times to fit");
  HALCYON_CHECK(period > 0 && std::isfinite(period), operation,
                "expected a period in days above 0, got {}", period);
  std::map<int64_t, std::vector<int64_t>> by_hour;
  for (const int64_t time : times) by_hour[second_of(time)].push_back(time);

  std::vector<int64_t> hours;
  std::vector<at::Tensor> coefficients;
  for (const auto& [hour, members] : by_hour) {
    HALCYON_CHECK(static_cast<int64_t>(members.size()) >= kHarmonics, operation,
                  "expected at least {} fields at second {} of the day, got {}", kHarmonics, hour,
                  members.size());
    const auto indices = time_indices(fields.times, members, operation);
    const at::Tensor values =
        at::index_select(fields.data, 0, at::tensor(indices, at::kLong)).to(at::kDouble).flatten(1);
    HALCYON_CHECK(!values.isnan().any().item<bool>(), operation,
                  "expected fields without missing values, got some at second {} of the day", hour);
    // by singular values: times of a single season do not determine all harmonics
    const at::Tensor solution =
        std::get<0>(at::linalg_lstsq(harmonics(members, period), values, std::nullopt, "gelsd"));
    hours.push_back(hour);
    coefficients.push_back(solution.view({kHarmonics, fields.data.size(1), fields.data.size(2)}));
  }
  return Climatology(fields.variables, fields.grid, std::move(hours), period,
                     at::stack(coefficients));
}

at::Tensor Climatology::at_fitted_hour(int64_t time) const {
  const auto hour =
      std::lower_bound(hours_.begin(), hours_.end(), second_of(time)) - hours_.begin();
  return at::einsum("h,hvx->vx", {harmonics({time}, period_)[0], coefficients_[hour]});
}

at::Tensor Climatology::at(int64_t time) const {
  const int64_t second = second_of(time), midnight = time - second;
  const auto next = std::lower_bound(hours_.begin(), hours_.end(), second);
  if (next != hours_.end() && *next == second) return at_fitted_hour(time);
  const int64_t after = next == hours_.end() ? midnight + kDay + hours_.front() : midnight + *next;
  const int64_t before =
      next == hours_.begin() ? midnight - kDay + hours_.back() : midnight + *(next - 1);
  const double weight = static_cast<double>(time - before) / static_cast<double>(after - before);
  return at_fitted_hour(before) * (1 - weight) + at_fitted_hour(after) * weight;
}

at::Tensor Climatology::at(const std::vector<int64_t>& times) const {
  at::Tensor out =
      at::empty({static_cast<int64_t>(times.size()), coefficients_.size(2), coefficients_.size(3)},
                at::kDouble);
  for (std::size_t t = 0; t < times.size(); ++t) out[static_cast<int64_t>(t)].copy_(at(times[t]));
  return out;
}

at::Tensor Climatology::anomaly(const Fields& fields) const {
  constexpr const char* operation = "Climatology::anomaly";
  check(fields, operation);
  HALCYON_CHECK(!fields.is_static(), operation, "expected fields with times, got static ones");
  HALCYON_CHECK(fields.grid == grid_, operation, "expected fields on the climatology's grid");
  std::vector<std::string> names;
  for (const auto& variable : variables_) names.push_back(variable.name);
  for (std::size_t v = 0; v < std::max(names.size(), fields.variables.size()); ++v)
    HALCYON_CHECK(
        v < names.size() && v < fields.variables.size() && fields.variables[v].name == names[v],
        operation, "expected the variables {}", fmt::join(names, ", "));
  return fields.data.to(at::kDouble) - at(fields.times);
}

void Climatology::save(const std::filesystem::path& path) const {
  TensorFile file;
  file.metadata["format"] = "halcyon climatology 1";
  file.metadata["variables"] = record_of(variables_);
  file.tensors["period"] = at::tensor({period_}, at::kDouble);
  file.tensors["hours"] = at::tensor(hours_, at::kLong);
  file.tensors["coefficients"] = coefficients_;
  put_grid(file, grid_);
  write_safetensors(path, file);
}

Climatology Climatology::load(const std::filesystem::path& path) {
  constexpr const char* operation = "Climatology::load";
  const TensorFile file = read_safetensors(path);
  const auto format = file.metadata.find("format");
  HALCYON_CHECK_KIND(format != file.metadata.end() && format->second == "halcyon climatology 1",
                     input, operation, "{}: expected a climatology of Halcyon", path.string());
  const std::string name = path.string();
  Grid grid = get_grid(file, name);
  auto variables = variables_of(file, name);
  const at::Tensor coefficients = file.at("coefficients"), hours = file.at("hours"),
                   period = file.at("period");
  const bool fits = coefficients.scalar_type() == at::kDouble && coefficients.dim() == 4 &&
                    hours.scalar_type() == at::kLong && hours.dim() == 1 && hours.size(0) > 0 &&
                    coefficients.size(0) == hours.size(0) && coefficients.size(1) == kHarmonics &&
                    coefficients.size(2) == static_cast<int64_t>(variables.size()) &&
                    coefficients.size(3) == size_of(grid) && period.scalar_type() == at::kDouble &&
                    period.numel() == 1 && period.item<double>() > 0;
  HALCYON_CHECK_KIND(fits, input, operation, "{}: expected shapes that fit together", name);
  const int64_t* hour = hours.const_data_ptr<int64_t>();
  std::vector<int64_t> list(hour, hour + hours.size(0));
  for (std::size_t h = 0; h < list.size(); ++h)
    HALCYON_CHECK_KIND(list[h] >= 0 && list[h] < kDay && (h == 0 || list[h] > list[h - 1]), input,
                       operation, "{}: expected ascending seconds of the day, got {}", name,
                       list[h]);
  return Climatology(std::move(variables), std::move(grid), std::move(list), period.item<double>(),
                     coefficients.clone());
}

}  // namespace halcyon::state
