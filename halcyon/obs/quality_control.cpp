// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/quality_control.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr std::array<std::string_view, 19> kNames = {"kept",
                                                     "not_finite",
                                                     "outside_valid_range",
                                                     "provider_flag",
                                                     "pressure",
                                                     "height",
                                                     "report_type",
                                                     "channel_dropped",
                                                     "outside_window",
                                                     "outside_region",
                                                     "unknown_platform",
                                                     "unknown_channel",
                                                     "duplicate",
                                                     "position",
                                                     "time",
                                                     "gross_departure",
                                                     "blocked_station",
                                                     "no_bias_statistics",
                                                     "not_nearest"};

constexpr const char* kWhere = "quality_control";

// The columns of one call: numbers as double (exact for every dtype here), checked once.
class Columns {
 public:
  explicit Columns(const std::map<std::string, at::Tensor>& columns) : columns_(columns) {
    rows_ = get("Observation").numel();
  }

  int64_t rows() const { return rows_; }
  at::Device device() const { return columns_.at("Observation").device(); }

  // Null where the column is absent and not needed.
  const double* ids(const std::string& name, bool needed) {
    const double* values = numbers(name, needed);
    if (!values) return nullptr;
    const auto& column = kept_.back();
    HALCYON_CHECK(column.eq(column.round()).logical_or(column.isnan()).all().item<bool>(), kWhere,
                  "expected whole numbers in column {}, got fractions", name);
    return values;
  }

  const double* numbers(const std::string& name, bool needed) {
    if (!columns_.contains(name)) {
      HALCYON_CHECK(!needed, kWhere, "expected a column {}, got none", name);
      return nullptr;
    }
    const auto column = get(name);
    HALCYON_CHECK(column.numel() == rows_, kWhere, "expected {} rows in column {}, got {}", rows_,
                  name, column.numel());
    kept_.push_back(column.to(at::kCPU, at::kDouble).contiguous());
    return kept_.back().const_data_ptr<double>();
  }

 private:
  at::Tensor get(const std::string& name) const {
    const auto found = columns_.find(name);
    HALCYON_CHECK(found != columns_.end(), kWhere, "expected a column {}, got none", name);
    HALCYON_CHECK(
        found->second.defined() && found->second.dim() == 1 && !found->second.is_complex(), kWhere,
        "expected column {} of rank 1, got {}", name, describe(found->second));
    return found->second.detach();
  }

  const std::map<std::string, at::Tensor>& columns_;
  int64_t rows_ = 0;
  std::vector<at::Tensor> kept_;
};

bool wind_in_situ(double type) {
  return type == 220 || type == 221 || (type >= 229 && type <= 235) || type == 280 || type == 282;
}

bool any(const double* flags, int64_t rows, bool value) {
  return std::any_of(flags, flags + rows, [value](double f) { return (f != 0) == value; });
}

}  // namespace

std::span<const std::string_view> qc_reasons() {
  return kNames;
}

at::Tensor quality_control(const std::map<std::string, at::Tensor>& columns,
                           const ChannelRules& rules) {
  Columns in(columns);
  const auto rows = in.rows();
  const double* value = in.numbers("Observation", true);
  const double* low = in.numbers("min_valid", true);
  const double* high = in.numbers("max_valid", true);
  const double* conventional = in.ids("is_conv", true);
  const bool some_conv = any(conventional, rows, true), some_sat = any(conventional, rows, false);
  const double* channel = in.ids("local_channel_id", some_conv);
  const double* pressure = in.numbers("Pressure", some_conv);
  const double* height = in.numbers("Height", some_conv);
  const double* qc_flag = in.ids("QC_Flag", some_sat && rules.qc_filter);
  const double* use_flag = in.ids("Analysis_Use_Flag", some_conv && rules.qc_filter);
  const double* type = in.ids("Observation_Type", some_conv && rules.conv_uv_in_situ_only);

  auto codes = at::empty({rows}, at::kInt);
  int32_t* out = codes.mutable_data_ptr<int32_t>();
  const auto judge = [&](int64_t i) {
    if (!std::isfinite(value[i])) return Reason::not_finite;
    if (!(value[i] >= low[i] && value[i] <= high[i])) return Reason::outside_valid_range;
    if (conventional[i] == 0)
      return rules.qc_filter && qc_flag[i] != 0 ? Reason::provider_flag : Reason::kept;
    const double lowest = channel[i] <= 2 ? 0.5 : 200;
    if (!(pressure[i] >= lowest && pressure[i] <= 1100)) return Reason::pressure;
    if (!(height[i] >= 0 && height[i] <= 60000)) return Reason::height;
    if (rules.qc_filter && use_flag[i] != 1) return Reason::provider_flag;
    const bool wind = channel[i] == 6 || channel[i] == 7;
    if (rules.conv_uv_in_situ_only && wind && !wind_in_situ(type[i])) return Reason::report_type;
    if (rules.conv_gps_level1_only && (channel[i] == 1 || channel[i] == 2))
      return Reason::channel_dropped;
    return Reason::kept;
  };
  at::parallel_for(0, rows, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<int32_t>(judge(i));
  });
  return codes.to(in.device());
}

std::vector<int64_t> count_reasons(const at::Tensor& codes) {
  std::vector<int64_t> counts(kNames.size(), 0);
  const auto host = codes.to(at::kCPU, at::kLong).contiguous();
  const int64_t* code = host.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < host.numel(); ++i) {
    HALCYON_CHECK(code[i] >= 0 && code[i] < static_cast<int64_t>(counts.size()), "count_reasons",
                  "expected codes below {}, got {}", counts.size(), code[i]);
    ++counts[static_cast<std::size_t>(code[i])];
  }
  return counts;
}

std::string reason_table(const Table& table, const at::Tensor& codes) {
  HALCYON_CHECK(codes.dim() == 1 && codes.numel() == table.rows(), "reason_table",
                "expected a code for each of {} rows, got {}", table.rows(), codes.numel());
  const auto total = count_reasons(codes);
  std::map<int32_t, std::vector<int64_t>> of;
  const auto number = table.values<int32_t>("variable");
  const auto host = codes.to(at::kCPU, at::kLong).contiguous();
  const int64_t* code = host.const_data_ptr<int64_t>();
  for (std::size_t i = 0; i < number.size(); ++i) {
    auto& counts = of[number[i]];
    counts.resize(kNames.size());
    ++counts[static_cast<std::size_t>(code[i])];
  }
  const auto known = static_cast<int32_t>(variables().size());
  std::string text = fmt::format("{:<10}{:>10}", "variable", "rows");
  const auto width = [](std::size_t r) { return std::max<std::size_t>(kNames[r].size(), 8) + 2; };
  for (std::size_t r = 0; r < total.size(); ++r) {
    if (total[r] > 0) text += fmt::format("{:>{}}", kNames[r], width(r));
  }
  const auto line = [&](std::string_view name, const std::vector<int64_t>& counts) {
    int64_t sum = 0;
    for (const auto count : counts) sum += count;
    text += fmt::format("\n{:<10}{:>10}", name, sum);
    for (std::size_t r = 0; r < total.size(); ++r) {
      if (total[r] > 0) text += fmt::format("{:>{}}", counts[r], width(r));
    }
  };
  for (const auto& [v, counts] : of)
    line(v >= 0 && v < known ? variable(v).name : std::string_view("unknown"), counts);
  if (of.size() != 1) line("all", total);
  return text + '\n';
}

}  // namespace halcyon::obs
