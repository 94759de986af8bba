// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "halcyon/base/files.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/quality_control.h"
#include "halcyon/obs/variables.h"

namespace halcyon::obs {
namespace {

using Field = std::function<std::string(int64_t row)>;

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

// ISO 8601 with as many digits of the second as are needed.
std::string time_text(int64_t ns) {
  if (ns == kMissingTimeNs) return "";
  constexpr int64_t second = 1'000'000'000;
  const int64_t whole = ns / second - (ns % second < 0), rest = ns - whole * second;
  auto text = format_time(whole);
  if (rest == 0) return text;
  text.pop_back();
  return fmt::format("{}.{:09}Z", text, rest);
}

Field named(std::span<const int32_t> codes, std::vector<std::string> names) {
  return [codes, names = std::move(names)](int64_t row) {
    const auto code = codes[static_cast<std::size_t>(row)];
    return code >= 0 && code < static_cast<int32_t>(names.size())
               ? quoted(names[static_cast<std::size_t>(code)])
               : fmt::format("{}", code);
  };
}

Field field_of(const Table& table, const std::string& name) {
  const auto& column = table.column(name);
  const auto strings = [](const auto& list) {
    return std::vector<std::string>(list.begin(), list.end());
  };
  if (column.text) return named(table.values<int32_t>(name), column.names);
  if (name == "variable") {
    std::vector<std::string> names;
    for (const auto& v : variables()) names.emplace_back(v.name);
    return named(table.values<int32_t>(name), std::move(names));
  }
  if (name == "platform") return named(table.values<int32_t>(name), strings(platforms()));
  if (name == "provider_flag") return named(table.values<int32_t>(name), strings(provider_flags()));
  if (name == "qc" && column.data.scalar_type() == at::kInt)
    return named(table.values<int32_t>(name), strings(qc_reasons()));
  if (column.data.scalar_type() == at::kFloat) {
    return [x = table.values<float>(name)](int64_t row) {
      const float value = x[static_cast<std::size_t>(row)];
      return std::isnan(value) ? std::string() : fmt::format("{}", value);
    };
  }
  if (at::isFloatingType(column.data.scalar_type())) {
    return [x = column.data.to(at::kDouble)](int64_t row) {
      const double value = x.const_data_ptr<double>()[row];
      return std::isnan(value) ? std::string() : fmt::format("{}", value);
    };
  }
  return [x = column.data.to(at::kLong)](int64_t row) {
    return fmt::format("{}", x.const_data_ptr<int64_t>()[row]);
  };
}

}  // namespace

void write_csv(const std::filesystem::path& path, const Table& table) {
  check_observations(table, "write_csv");
  std::string text = "time";
  std::vector<Field> fields;
  for (const auto& [name, column] : table.columns()) {
    if (name == "time_ns") continue;
    text += ',' + quoted(name);
    fields.push_back(field_of(table, name));
  }
  const auto time = table.values<int64_t>("time_ns");
  for (int64_t row = 0; row < table.rows(); ++row) {
    text += '\n' + time_text(time[static_cast<std::size_t>(row)]);
    for (const auto& field : fields) text += ',' + field(row);
  }
  write_text(path, text + '\n');
}

}  // namespace halcyon::obs
