// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"

namespace halcyon::obs {
namespace {

struct Standard {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<Standard, 9> kStandard = {{{"time_ns", at::kLong},
                                                {"lat", at::kDouble},
                                                {"lon", at::kDouble},
                                                {"value", at::kFloat},
                                                {"variable", at::kInt},
                                                {"platform", at::kInt},
                                                {"height", at::kFloat},
                                                {"pressure", at::kFloat},
                                                {"error_sd", at::kFloat}}};

// The text columns of several tables get one list of names.
Table::Column joined_text(const std::vector<const Table::Column*>& parts) {
  Table::Column out;
  out.text = true;
  std::unordered_map<std::string, int32_t> known;
  std::vector<at::Tensor> data;
  for (const auto* part : parts) {
    std::vector<int32_t> renumber;
    for (const auto& name : part->names) {
      const auto [entry, added] = known.emplace(name, static_cast<int32_t>(out.names.size()));
      if (added) out.names.push_back(name);
      renumber.push_back(entry->second);
    }
    data.push_back(renumber.empty() ? part->data
                                    : at::tensor(renumber, at::kInt).index_select(0, part->data));
  }
  out.data = at::cat(data);
  return out;
}

template <typename T>
int compare(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a) || std::isnan(b)) return static_cast<int>(std::isnan(a)) - std::isnan(b);
  }
  return a < b ? -1 : static_cast<int>(b < a);
}

}  // namespace

bool Table::has(std::string_view name) const {
  return columns_.contains(name);
}

const Table::Column& Table::column(std::string_view name) const {
  const auto found = columns_.find(name);
  if (found == columns_.end()) {
    std::string names;
    for (const auto& [key, value] : columns_) names += (names.empty() ? "" : ", ") + key;
    throw_error(ErrorKind::argument, "Table",
                fmt::format("no column {}; it has {}", name, names.empty() ? "none" : names));
  }
  return found->second;
}

template <typename T>
std::span<const T> Table::values(std::string_view name) const {
  const auto& data = column(name).data;
  HALCYON_CHECK(data.scalar_type() == c10::CppTypeToScalarType<T>::value, "Table",
                "expected {} in column {}, got {}",
                c10::toString(c10::CppTypeToScalarType<T>::value), name,
                c10::toString(data.scalar_type()));
  return {data.const_data_ptr<T>(), static_cast<std::size_t>(data.numel())};
}
template std::span<const float> Table::values(std::string_view) const;
template std::span<const double> Table::values(std::string_view) const;
template std::span<const int32_t> Table::values(std::string_view) const;
template std::span<const int64_t> Table::values(std::string_view) const;
template std::span<const bool> Table::values(std::string_view) const;

const std::string& Table::text(std::string_view name, int64_t row) const {
  const auto& found = column(name);
  HALCYON_CHECK(found.text, "Table", "expected text in column {}", name);
  HALCYON_CHECK(row >= 0 && row < rows_, "Table", "expected a row below {}, got {}", rows_, row);
  return found.names[static_cast<std::size_t>(found.data.const_data_ptr<int32_t>()[row])];
}

void Table::set(const std::string& name, const at::Tensor& data, const std::string& units) {
  HALCYON_CHECK(!name.empty() && data.defined() && data.dim() == 1 && !data.is_complex(), "Table",
                "expected a named column of rank 1, got rank {} for \"{}\"",
                data.defined() ? data.dim() : 0, name);
  HALCYON_CHECK(columns_.empty() || data.numel() == rows_, "Table",
                "expected {} rows in column {}, got {}", rows_, name, data.numel());
  HALCYON_CHECK(data.scalar_type() != at::kHalf && data.scalar_type() != at::kBFloat16, "Table",
                "expected float32 or float64 in column {}, got {}", name,
                c10::toString(data.scalar_type()));
  rows_ = data.numel();
  columns_[name] = {data.detach().to(at::kCPU).contiguous(), units, {}, false};
}

void Table::set_text(const std::string& name, const std::vector<std::string>& values) {
  std::unordered_map<std::string, int32_t> known;
  std::vector<std::string> names;
  auto codes = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  auto* to = codes.mutable_data_ptr<int32_t>();
  for (const auto& value : values) {
    const auto [entry, added] = known.emplace(value, static_cast<int32_t>(names.size()));
    if (added) names.push_back(value);
    *to++ = entry->second;
  }
  set_text(name, codes, std::move(names));
}

void Table::set_text(const std::string& name, const at::Tensor& codes,
                     std::vector<std::string> names) {
  HALCYON_CHECK(codes.defined() && at::isIntegralType(codes.scalar_type(), false), "Table",
                "expected integer codes for column {}, got {}", name, describe(codes));
  const auto narrow = codes.to(at::kLong);
  HALCYON_CHECK(
      narrow.numel() == 0 || (narrow.min().item<int64_t>() >= 0 &&
                              narrow.max().item<int64_t>() < static_cast<int64_t>(names.size())),
      "Table", "expected codes in [0, {}) for column {}, got others", names.size(), name);
  set(name, narrow.to(at::kInt), "");
  columns_[name].names = std::move(names);
  columns_[name].text = true;
}

void Table::drop(std::string_view name) {
  column(name);
  columns_.erase(columns_.find(name));
  if (columns_.empty()) rows_ = 0;
}

Table Table::select(const at::Tensor& which) const {
  HALCYON_CHECK(which.defined() && which.dim() == 1 &&
                    (which.scalar_type() == at::kBool || which.scalar_type() == at::kLong),
                "Table", "expected a mask or an int64 index of rank 1, got {}", describe(which));
  const auto rows = which.to(at::kCPU);
  at::Tensor index = rows;
  if (rows.scalar_type() == at::kBool) {
    HALCYON_CHECK(rows.numel() == rows_, "Table", "expected a mask of {} rows, got {}", rows_,
                  rows.numel());
    index = rows.nonzero().squeeze(1);
  } else {
    HALCYON_CHECK(rows.numel() == 0 ||
                      (rows.min().item<int64_t>() >= 0 && rows.max().item<int64_t>() < rows_),
                  "Table", "expected rows in [0, {}), got others", rows_);
  }
  Table out;
  out.rows_ = index.numel();
  for (const auto& [name, from] : columns_)
    out.columns_[name] = {from.data.index_select(0, index), from.units, from.names, from.text};
  return out;
}

Table Table::concat(const std::vector<Table>& tables) {
  Table out;
  const Table* first = nullptr;
  std::vector<const Table*> parts;
  for (const auto& table : tables) {
    if (table.columns_.empty()) continue;
    if (!first) first = &table;
    parts.push_back(&table);
    out.rows_ += table.rows_;
    HALCYON_CHECK(table.columns_.size() == first->columns_.size(), "Table",
                  "expected tables with the same columns, got {} and {} of them",
                  first->columns_.size(), table.columns_.size());
  }
  if (!first) return out;
  for (const auto& [name, like] : first->columns_) {
    std::vector<const Column*> columns;
    std::vector<at::Tensor> data;
    for (const auto* part : parts) {
      const auto& column = part->column(name);
      HALCYON_CHECK(column.data.scalar_type() == like.data.scalar_type() &&
                        column.units == like.units && column.text == like.text,
                    "Table", "column {}: expected {} in \"{}\", got {} in \"{}\"", name,
                    c10::toString(like.data.scalar_type()), like.units,
                    c10::toString(column.data.scalar_type()), column.units);
      columns.push_back(&column);
      data.push_back(column.data);
    }
    out.columns_[name] =
        like.text ? joined_text(columns) : Column{at::cat(data), like.units, {}, false};
  }
  return out;
}

Table Table::sorted(const std::vector<std::string>& by) const {
  auto order = at::arange(rows_, at::kLong);
  auto* first = order.mutable_data_ptr<int64_t>();
  // from the least significant key to the first one
  for (auto key = by.rbegin(); key != by.rend(); ++key) {
    const auto& col = column(*key);
    auto data = col.data;
    if (col.text) {
      std::vector<int32_t> rank(col.names.size()), place(col.names.size());
      std::iota(place.begin(), place.end(), 0);
      std::sort(place.begin(), place.end(), [&](int32_t a, int32_t b) {
        return col.names[static_cast<std::size_t>(a)] < col.names[static_cast<std::size_t>(b)];
      });
      for (std::size_t i = 0; i < place.size(); ++i)
        rank[static_cast<std::size_t>(place[i])] = static_cast<int32_t>(i);
      if (!rank.empty()) data = at::tensor(rank, at::kInt).index_select(0, data);
    }
    AT_DISPATCH_ALL_TYPES_AND(at::kBool, data.scalar_type(), "sorted", [&] {
      const auto* values = data.const_data_ptr<scalar_t>();
      std::stable_sort(first, first + rows_, [values](int64_t a, int64_t b) {
        return compare(values[a], values[b]) < 0;
      });
    });
  }
  return select(order);
}

Table make_table(const at::Tensor& time_ns, const at::Tensor& lat, const at::Tensor& lon,
                 const at::Tensor& value, int32_t variable) {
  Table table;
  const int64_t rows = value.numel();
  table.set("time_ns", time_ns.to(at::kLong), "nanoseconds since 1970-01-01");
  table.set("lat", lat.to(at::kDouble), "degrees_north");
  table.set("lon", lon.to(at::kDouble), "degrees_east");
  table.set("value", value.to(at::kFloat), "by variable");
  table.set("variable", at::full({rows}, variable, at::kInt));
  table.set("platform", at::zeros({rows}, at::kInt));
  table.set("height", at::full({rows}, NAN, at::kFloat), "m");
  table.set("pressure", at::full({rows}, NAN, at::kFloat), "hPa");
  table.set("error_sd", at::full({rows}, NAN, at::kFloat), "by variable");
  table.set("provider_flag", at::zeros({rows}, at::kInt));
  table.set_text("station", at::zeros({rows}, at::kInt), {""});
  return table;
}

void check_observations(const Table& table, std::string_view operation) {
  const auto require = [&](const char* name, at::ScalarType dtype) {
    HALCYON_CHECK(table.has(name), operation, "expected a column {}, got none", name);
    HALCYON_CHECK(table[name].scalar_type() == dtype, operation, "expected {} in column {}, got {}",
                  c10::toString(dtype), name, c10::toString(table[name].scalar_type()));
  };
  for (const auto& [name, dtype] : kStandard) require(name, dtype);
  require("provider_flag", at::kInt);
  require("station", at::kInt);
  HALCYON_CHECK(table.column("station").text, operation, "expected text in column station");
}

}  // namespace halcyon::obs
