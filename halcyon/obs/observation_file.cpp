// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/observation_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <sstream>

#include "halcyon/base/cf_time.h"
#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/reader.h"
#include "halcyon/obs/rows.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

constexpr const char* kMark = "halcyon_observations";
constexpr std::string_view kNames = "_names";
// Of a table's column whose units are those of each row's variable; a file says none (CF).
constexpr const char* kByVariable = "by variable";
constexpr const char* kNanoseconds = "nanoseconds since 1970-01-01";

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

// Columns without which a row says nothing; the others have a value for "unknown".
constexpr std::array<const char*, 5> kNeeded = {"time_ns", "lat", "lon", "value", "variable"};

// Numbers of columns that files of write_observations hold as whole numbers.
at::Tensor read_codes(const NetcdfReader& nc, const std::string& name) {
  const auto codes = nc.read_integers(name, kUnknown);
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  return codes.where(codes.abs().le(most), int64_t{kUnknown}).to(at::kInt);
}

at::Tensor read_times(const NetcdfReader& nc) {
  const auto units = parse_cf_units(nc.text("time_ns", "units").value_or(kNanoseconds));
  if (units.seconds == 1e-9 && units.reference == 0 && units.microseconds == 0)
    return nc.read_integers("time_ns", kMissingTimeNs);
  auto times = read_cf_time(nc, "time_ns").clone();  // somebody changed the units
  auto* time = times.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < times.numel(); ++i) time[i] = to_ns(time[i]);
  return times;
}

// A column of numbers in the dtype of the table; of others, that of the file unless it is packed.
at::Tensor read_column(const NetcdfReader& nc, const NetcdfVariable& info) {
  if (info.name == "time_ns") return read_times(nc);
  if (info.name == "lat" || info.name == "lon") return nc.read_physical(info.name, at::kDouble);
  for (const char* name : {"value", "height", "pressure", "error_sd"}) {
    if (info.name == name) return nc.read_physical(info.name, at::kFloat);
  }
  const bool packed = nc.numbers(info.name, "scale_factor") || nc.numbers(info.name, "add_offset");
  if (at::isFloatingType(info.dtype)) return nc.read_physical(info.name, info.dtype);
  return packed ? nc.read_physical(info.name, at::kFloat) : nc.read(info.name);
}

Content read(const OpenFile& file, const ReadOptions& options) {
  const auto& nc = *file.netcdf;
  HALCYON_CHECK_KIND(nc.text("", kMark) == "1", input, "halcyon",
                     "{}: expected version 1 of the format, got {}", file.path.string(),
                     nc.text("", kMark).value_or("none"));
  for (const char* name : kNeeded)
    HALCYON_CHECK_KIND(nc.has(name), input, "halcyon", "{}: expected a column {}, got none",
                       file.path.string(), name);
  const std::vector<int64_t> shape{nc.dimension("row")};
  Content content;
  auto& table = content.table;
  // what is unknown where the file has no such column
  const auto unknown = make_table(at::full(shape, kMissingTimeNs, at::kLong), at::zeros(shape),
                                  at::zeros(shape), at::zeros(shape), 0);
  for (const auto& [name, column] : unknown.columns()) {
    if (nc.has(name)) continue;
    content.notes.push_back(fmt::format("no column {}: unknown for all rows", name));
    if (column.text) {
      table.set_text(name, column.data, column.names);
    } else {
      table.set(name, column.data, column.units);
    }
  }
  for (const auto& info : nc.variables()) {
    if (info.kind != NetcdfKind::number) continue;
    if (info.dimensions != std::vector<std::string>{"row"}) {
      HALCYON_CHECK_KIND(!unknown.has(info.name), input, "halcyon",
                         "{}: column {}: expected one number a row", file.path.string(), info.name);
      continue;
    }
    const auto names = info.name + std::string(kNames);
    if (nc.has(names)) {
      auto texts = nc.read_strings(names);
      auto codes = read_codes(nc, info.name);
      if (codes.lt(0).any().item<bool>()) {  // a text that is missing
        codes = codes.where(codes.ge(0), static_cast<int64_t>(texts.size()));
        texts.emplace_back();
      }
      table.set_text(info.name, codes, std::move(texts));
      continue;
    }
    if (const auto ours = meanings_of(info.name); !ours.empty()) {
      const auto meanings = nc.text(info.name, "flag_meanings");
      HALCYON_CHECK_KIND(meanings || info.name != "variable", input, "halcyon",
                         "{}: expected column variable to have flag_meanings, got none",
                         file.path.string());
      table.set(info.name, renumbered(read_codes(nc, info.name), meanings.value_or(""), ours));
      continue;
    }
    const auto units = unknown.has(info.name)           ? unknown.units(info.name)
                       : at::isFloatingType(info.dtype) ? kByVariable
                                                        : "1";
    table.set(info.name, read_column(nc, info),
              info.name == "time_ns" ? units : nc.text(info.name, "units").value_or(units));
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
    if (column.units != kByVariable) out.attribute(name, "units", column.units);
  }
  const std::map<std::string_view, const char*> standard_names = {
      {"time_ns", "time"}, {"lat", "latitude"}, {"lon", "longitude"}};
  if (const auto found = standard_names.find(name); found != standard_names.end())
    out.attribute(name, "standard_name", found->second);
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
