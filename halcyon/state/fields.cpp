// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/fields.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::state {
namespace {

std::string nearest(const std::vector<int64_t>& have, int64_t wanted) {
  if (have.empty()) return "it holds no times";
  const auto after = std::lower_bound(have.begin(), have.end(), wanted);
  if (after == have.begin()) return "the first is " + format_time(have.front());
  if (after == have.end()) return "the last is " + format_time(have.back());
  return "the nearest are " + format_time(*(after - 1)) + " and " + format_time(*after);
}

}  // namespace

void check(const Fields& fields, std::string_view operation) {
  const at::Tensor& data = fields.data;
  HALCYON_CHECK(data.defined() && data.dim() == 3, operation,
                "expected data of shape (time, variable, point), got {}",
                data.defined() ? fmt::format("rank {}", data.dim()) : "no tensor");
  HALCYON_CHECK(data.scalar_type() == at::kFloat && data.is_cpu(), operation,
                "expected float32 data on the CPU, got {} on {}", c10::toString(data.scalar_type()),
                data.device().str());
  HALCYON_CHECK(data.size(1) == static_cast<int64_t>(fields.variables.size()), operation,
                "expected data for {} variables, got {}", fields.variables.size(), data.size(1));
  HALCYON_CHECK(data.size(2) == size_of(fields.grid), operation,
                "expected data at {} points, got {}", size_of(fields.grid), data.size(2));
  const int64_t times = fields.is_static() ? 1 : static_cast<int64_t>(fields.times.size());
  HALCYON_CHECK(data.size(0) == times, operation, "expected data at {} times, got {}", times,
                data.size(0));
  for (std::size_t t = 1; t < fields.times.size(); ++t)
    HALCYON_CHECK(fields.times[t - 1] < fields.times[t], operation,
                  "expected ascending times, got {} before {}", format_time(fields.times[t - 1]),
                  format_time(fields.times[t]));
}

int64_t variable_index(const Fields& fields, std::string_view name) {
  std::string names;
  for (std::size_t v = 0; v < fields.variables.size(); ++v) {
    if (fields.variables[v].name == name) return static_cast<int64_t>(v);
    names += (v > 0 ? ", " : "") + fields.variables[v].name;
  }
  throw_error(ErrorKind::input, "fields",
              fmt::format("expected a variable {}, got only: {}", name, names));
}

std::vector<int64_t> time_indices(const std::vector<int64_t>& have,
                                  const std::vector<int64_t>& wanted, std::string_view operation,
                                  std::string_view file) {
  std::vector<int64_t> indices;
  for (const int64_t time : wanted) {
    const auto at = std::lower_bound(have.begin(), have.end(), time);
    HALCYON_CHECK_KIND(at != have.end() && *at == time, input, operation,
                       "expected fields at {}{}{}, but {}", format_time(time),
                       file.empty() ? "" : " in ", file, nearest(have, time));
    indices.push_back(at - have.begin());
  }
  return indices;
}

Fields select_times(const Fields& fields, const std::vector<int64_t>& times) {
  check(fields, "select_times");
  const auto indices = time_indices(fields.times, times, "select_times");
  Fields out{fields.variables, fields.grid, times,
             at::index_select(fields.data, 0, at::tensor(indices, at::kLong))};
  check(out, "select_times");
  return out;
}

Fields select_variables(const Fields& fields, const std::vector<std::string>& names) {
  check(fields, "select_variables");
  std::vector<int64_t> indices;
  Fields out{{}, fields.grid, fields.times, {}};
  for (const auto& name : names) {
    indices.push_back(variable_index(fields, name));
    out.variables.push_back(fields.variables[static_cast<std::size_t>(indices.back())]);
  }
  out.data = at::index_select(fields.data, 1, at::tensor(indices, at::kLong));
  return out;
}

}  // namespace halcyon::state
