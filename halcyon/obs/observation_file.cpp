// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/observation_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <sstream>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr const char* kMark = "halcyon_observations";
constexpr std::string_view kNames = "_names";

std::vector<std::string> meanings_of(std::string_view column) {
  const auto copy = [](const auto& list) {
    return std::vector<std::string>(list.begin(), list.end());
  };
  if (column == "platform") return copy(platforms());
  if (column == "provider_flag") return copy(provider_flags());
  if (column == "qc") return copy(qc_reasons());
  std::vector<std::string> names;
  if (column == "variable") {
    for (const auto& v : variables()) names.emplace_back(v.name);
  }
  return names;
}

const char* long_name(std::string_view column) {
  static const std::map<std::string_view, const char*> names = {
      {"time_ns", "time of observation"},
      {"lat", "latitude"},
      {"lon", "longitude"},
      {"value", "observed value, in the units of its variable"},
      {"variable", "what is observed"},
      {"platform", "kind of platform"},
      {"height", "height of the station above sea level"},
      {"pressure", "pressure at the observation"},
      {"error_sd", "standard deviation of the observation's error"},
      {"provider_flag", "quality as the provider of the source file gives it"},
      {"station", "identifier of the station"},
      {"qc", "reason why the row was rejected, kept if it was not"},
      {"bias", "bias that was taken off the value"}};
  const auto found = names.find(column);
  return found == names.end() ? nullptr : found->second;
}

bool recognises(const OpenFile& file) {
  return file.netcdf && file.netcdf->text("", kMark).has_value();
}

constexpr int32_t kUnknown = -1;  // quality control rejects the row and counts it

// Numbers of the file's list of names into numbers of ours.
at::Tensor renumbered(const at::Tensor& codes, const std::string& meanings,
                      const std::vector<std::string>& ours) {
  std::vector<int32_t> map;
  std::istringstream words(meanings);
  for (std::string word; words >> word;) {
    const auto found = std::find(ours.begin(), ours.end(), word);
    map.push_back(found == ours.end() ? kUnknown : static_cast<int32_t>(found - ours.begin()));
  }
  auto out = codes.clone();
  int32_t* code = out.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    const bool named = code[i] >= 0 && code[i] < static_cast<int32_t>(map.size());
    code[i] = named ? map[static_cast<std::size_t>(code[i])] : kUnknown;
  }
  return out;
}

Content read(const OpenFile& file, const ReadOptions& options) {
  const auto& nc = *file.netcdf;
  HALCYON_CHECK_KIND(nc.text("", kMark) == "1", input, "halcyon",
                     "{}: expected version 1 of the format, got {}", file.path.string(),
                     nc.text("", kMark).value_or("none"));
  const std::vector<int64_t> shape{nc.dimension("row")};
  Content content;
  for (const auto& info : nc.variables()) {
    if (info.kind != NetcdfKind::number) continue;
    const auto where = fmt::format("{}: column {}", file.path.string(), info.name);
    HALCYON_CHECK_KIND(info.shape == shape, input, "halcyon", "{}: expected one number a row",
                       where);
    auto data = nc.read(info.name);
    const auto names = info.name + std::string(kNames);
    if (nc.has(names)) {
      content.table.set_text(info.name, data, nc.read_strings(names));
      continue;
    }
    if (const auto ours = meanings_of(info.name); !ours.empty()) {
      HALCYON_CHECK_KIND(info.dtype == at::kInt, input, "halcyon", "{}: expected int32", where);
      data = renumbered(data, nc.text(info.name, "flag_meanings").value_or(""), ours);
    }
    content.table.set(info.name, data, nc.text(info.name, "units").value_or("1"));
  }
  check_observations(content.table, "halcyon");
  if (!options.variables.empty()) {
    auto wanted = content.table["variable"] == kUnknown;  // to be rejected and counted
    for (const auto& name : options.variables)
      wanted.logical_or_(content.table["variable"] == variable_number(name));
    content.table = content.table.select(wanted);
  }
  return content;
}

const bool registered =
    register_format({"halcyon", "Halcyon's own observation file, NetCDF-4", recognises, read});

void define(NetcdfWriter& out, const std::string& name, const Table::Column& column) {
  NetcdfVariableOptions options;
  if (name == "time_ns") options.fill = static_cast<double>(kMissingTimeNs);
  out.variable(name, column.data.scalar_type(), {"row"}, options);
  if (column.text) {
    out.dimension(name + std::string(kNames), static_cast<int64_t>(column.names.size()));
    out.string_variable(name + std::string(kNames), {name + std::string(kNames)});
  } else {
    out.attribute(name, "units", column.units);
  }
  if (const char* text = long_name(name)) out.attribute(name, "long_name", text);
  if (const auto meanings = meanings_of(name); !meanings.empty()) {
    std::vector<int32_t> values(meanings.size());
    std::iota(values.begin(), values.end(), 0);
    out.attribute(name, "flag_values", values);
    out.attribute(name, "flag_meanings", fmt::format("{}", fmt::join(meanings, " ")));
  }
}

}  // namespace

void write_observations(const std::filesystem::path& path, const Table& table,
                        const std::map<std::string, std::string>& attributes) {
  check_observations(table, "write_observations");
  for (const auto& [name, column] : table.columns()) {
    HALCYON_CHECK(name != "row" && !name.ends_with(kNames), "write_observations",
                  "a column of a file cannot be named {}", name);
  }
  write_netcdf(path, [&](NetcdfWriter& out) {
    out.dimension("row", table.rows());
    out.attribute("", "Conventions", "CF-1.9");
    out.attribute("", kMark, "1");
    for (const auto& [name, text] : attributes) out.attribute("", name, text);
    for (const auto& [name, column] : table.columns()) define(out, name, column);
    for (const auto& [name, column] : table.columns()) {
      out.write(name, column.data);
      if (column.text) out.write_strings(name + std::string(kNames), column.names);
    }
  });
}

}  // namespace halcyon::obs
