// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/netcdf_packing.h"

#include <netcdf.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "halcyon/base/error.h"

namespace halcyon::netcdf_detail {
namespace {

bool is_integer(int type) {
  return type != NC_FLOAT && type != NC_DOUBLE;
}

int of_other_sign(int type) {
  switch (type) {
    case NC_BYTE:
      return NC_UBYTE;
    case NC_SHORT:
      return NC_USHORT;
    case NC_INT:
      return NC_UINT;
    case NC_INT64:
      return NC_UINT64;
    case NC_UBYTE:
      return NC_BYTE;
    case NC_USHORT:
      return NC_SHORT;
    case NC_UINT:
      return NC_INT;
    default:
      return NC_INT64;
  }
}

bool is_unsigned(int type) {
  return type == NC_UBYTE || type == NC_USHORT || type == NC_UINT || type == NC_UINT64;
}

// NC_FILL_* of the type that is stored: what is read where nothing was written. A byte has none, as
// all its values are in use.
std::optional<long double> default_fill(int type) {
  switch (type) {
    case NC_SHORT:
      return NC_FILL_SHORT;
    case NC_USHORT:
      return NC_FILL_USHORT;
    case NC_INT:
      return NC_FILL_INT;
    case NC_UINT:
      return NC_FILL_UINT;
    case NC_INT64:
      return NC_FILL_INT64;
    case NC_UINT64:
      return NC_FILL_UINT64;
    case NC_FLOAT:
      return NC_FILL_FLOAT;
    case NC_DOUBLE:
      return NC_FILL_DOUBLE;
    default:
      return std::nullopt;
  }
}

std::string lower(std::string text) {
  for (auto& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string trimmed(const std::string& text) {
  const std::string blank(" \t\r\n\0", 5);
  const auto begin = text.find_first_not_of(blank);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

class Attributes {
 public:
  Attributes(int file, int id, const std::string& where) : file_(file), id_(id), where_(where) {}

  // Nothing where the variable has no such attribute, empty where it has one of length 0.
  std::optional<std::string> text(const char* name) const {
    const auto found = inquire(name);
    if (!found || (found->type != NC_CHAR && found->type != NC_STRING)) return std::nullopt;
    if (found->type == NC_CHAR) {
      std::string value(found->size, '\0');
      check(nc_get_att_text(file_, id_, name, value.data()), name);
      return trimmed(value);
    }
    std::vector<char*> values(found->size, nullptr);
    std::string value;
    if (values.empty()) return value;
    check(nc_get_att_string(file_, id_, name, values.data()), name);
    for (const char* one : values)
      value += (value.empty() ? "" : " ") + std::string(one ? one : "");
    nc_free_string(values.size(), values.data());
    return trimmed(value);
  }

  std::optional<std::vector<Mark>> numbers(const char* name) const {
    const auto found = inquire(name);
    if (!found || found->type == NC_CHAR || found->type == NC_STRING) return std::nullopt;
    require(found->type <= NC_UINT64, name, "expected numbers, got a type of the file's own");
    std::vector<Mark> out(found->size, {0, found->type});
    if (out.empty()) return out;
    const auto get = [&](auto zero, auto* function) {
      std::vector<decltype(zero)> values(found->size);
      check(function(file_, id_, name, values.data()), name);
      for (std::size_t i = 0; i < out.size(); ++i) out[i].value = values[i];
    };
    if (found->type == NC_UINT64) {
      get(0ULL, nc_get_att_ulonglong);
    } else if (is_integer(found->type)) {
      get(0LL, nc_get_att_longlong);
    } else {
      get(0.0, nc_get_att_double);
    }
    return out;
  }

  // At most one number.
  std::optional<Mark> number(const char* name) const {
    const auto as_text = text(name);
    require(!as_text, name,
            fmt::format("expected a number, got the text \"{}\"", as_text.value_or("")));
    const auto values = numbers(name);
    if (!values) return std::nullopt;
    require(values->size() == 1, name, fmt::format("expected one number, got {}", values->size()));
    return values->front();
  }

  // A mark may be a vector, and text where it says a number.
  std::vector<Mark> marks(const char* name, int type) const {
    if (const auto as_text = text(name)) {
      if (as_text->empty()) return {};
      char* end = nullptr;
      const long double value = std::strtold(as_text->c_str(), &end);
      require(*end == '\0', name, fmt::format("expected numbers, got the text \"{}\"", *as_text));
      return {{value, type}};
    }
    return numbers(name).value_or(std::vector<Mark>{});
  }

  void require(bool holds, const char* name, const std::string& what) const {
    HALCYON_CHECK_KIND(holds, input, "NetCDF", "{}: attribute {}: {}", where_, name, what);
  }

 private:
  struct Found {
    int type;
    std::size_t size;
  };
  std::optional<Found> inquire(const char* name) const {
    Found found{};
    const int status = nc_inq_att(file_, id_, name, &found.type, &found.size);
    if (status == NC_ENOTATT) return std::nullopt;
    check(status, name);
    return found;
  }
  void check(int status, const char* name) const {
    require(status == NC_NOERR, name, nc_strerror(status));
  }

  int file_, id_;
  const std::string& where_;
};

void read_sign(const Attributes& attributes, Packing& packing) {
  constexpr const char* name = "_Unsigned";
  const auto says = attributes.text(name);
  if (!says) {
    attributes.require(!attributes.numbers(name), name, "expected \"true\" or \"false\"");
    return;
  }
  const auto word = lower(*says);
  attributes.require(word == "true" || word == "false", name,
                     fmt::format("expected \"true\" or \"false\", got \"{}\"", *says));
  if (!is_integer(packing.type) || is_unsigned(packing.type) == (word == "true")) return;
  packing.type = of_other_sign(packing.type);
  packing.reinterpreted = true;
}

// The wider type of scale_factor and add_offset, nothing where there is neither.
std::optional<int> read_scale(const Attributes& attributes, Packing& packing) {
  const auto scale = attributes.number("scale_factor"), offset = attributes.number("add_offset");
  if (scale) {
    packing.scale = static_cast<double>(scale->value);
    attributes.require(std::isfinite(packing.scale) && packing.scale != 0, "scale_factor",
                       fmt::format("expected a number other than 0, got {}", packing.scale));
  }
  if (offset) {
    packing.offset = static_cast<double>(offset->value);
    attributes.require(std::isfinite(packing.offset), "add_offset",
                       fmt::format("expected a finite number, got {}", packing.offset));
  }
  const auto rank = [](int type) { return type == NC_DOUBLE ? 100 : type == NC_FLOAT ? 99 : type; };
  if (!scale && !offset) return std::nullopt;
  if (!scale || !offset) return scale ? scale->type : offset->type;
  return rank(scale->type) >= rank(offset->type) ? scale->type : offset->type;
}

// The users' guide: of the type of the values (that of scale and offset) and not of the stored
// numbers, they bound the values; otherwise the stored numbers. A float beside integers with a
// double scale is of neither.
Bounds& bounded_by(Packing& packing, int stored, std::optional<int> value_type, int type) {
  if (!value_type || type == stored || type == packing.type) return packing.packed;
  if (type == *value_type) return packing.unpacked;
  return is_integer(type) ? packing.packed : packing.doubtful;
}

void read_bounds(const Attributes& attributes, int stored, std::optional<int> value_type,
                 Packing& packing) {
  const auto bound = [&](const Mark& mark, bool is_low) {
    if (std::isnan(mark.value)) return;
    long double value = mark.value;
    // valid_range = 0b, -1b of unsigned bytes ends at 255
    if (packing.reinterpreted && mark.type == stored && value < 0 && is_unsigned(packing.type))
      value += std::ldexp(1.0L, stored == NC_BYTE    ? 8
                                : stored == NC_SHORT ? 16
                                : stored == NC_INT   ? 32
                                                     : 64);
    auto& bounds = bounded_by(packing, stored, value_type, mark.type);
    if (is_low) {
      bounds.low = std::max(value, bounds.low.value_or(value));
    } else {
      bounds.high = std::min(value, bounds.high.value_or(value));
    }
  };
  const auto as_text = attributes.text("valid_range");
  attributes.require(!as_text, "valid_range",
                     fmt::format("expected numbers, got the text \"{}\"", as_text.value_or("")));
  if (const auto range = attributes.numbers("valid_range")) {
    attributes.require(range->size() == 2, "valid_range",
                       fmt::format("expected two numbers, got {}", range->size()));
    attributes.require(!(range->at(0).value > range->at(1).value) || packing.reinterpreted,
                       "valid_range", "expected the smaller number first");
    bound(range->at(0), true);
    bound(range->at(1), false);
  }
  if (const auto low = attributes.number("valid_min")) bound(*low, true);
  if (const auto high = attributes.number("valid_max")) bound(*high, false);
}

}  // namespace

Packing read_packing(int file, int id, int type, const std::string& where) {
  const Attributes attributes(file, id, where);
  Packing packing;
  packing.where = where;
  packing.type = type;
  read_sign(attributes, packing);
  const auto value_type = read_scale(attributes, packing);
  packing.marks = attributes.marks("_FillValue", type);
  // NaN is no integer: as good as no _FillValue (xarray writes it so)
  const bool filled = std::any_of(packing.marks.begin(), packing.marks.end(), [&](const Mark& m) {
    return !is_integer(type) || std::isfinite(m.value);
  });
  const auto more = attributes.marks("missing_value", type);
  packing.marks.insert(packing.marks.end(), more.begin(), more.end());
  if (const auto standard = default_fill(type); standard && !filled)
    packing.marks.push_back({*standard, type});
  read_bounds(attributes, type, value_type, packing);
  return packing;
}

}  // namespace halcyon::netcdf_detail
