// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

// What the attributes of a variable say about its numbers, after the NetCDF users' guide and CF:
// _Unsigned, _FillValue, missing_value, valid_min, valid_max, valid_range, scale_factor,
// add_offset. For the sources of netcdf.h only.
namespace halcyon::netcdf_detail {

// A number as an attribute has it: a long double holds every 64-bit integer and every double.
struct Mark {
  long double value;
  int type;  // nc_type of the attribute; the variable's own where it was text
};

struct Bounds {
  std::optional<long double> low, high;
};

struct Packing {
  std::string where;           // "FILE: variable NAME", for errors
  int type;                    // nc_type of the numbers as they are meant
  bool reinterpreted = false;  // _Unsigned says another sign than the file's type has
  std::vector<Mark> marks;
  Bounds packed, unpacked;  // of the stored numbers; of the values
  Bounds doubtful;          // of which nothing says what they bound
  double scale = 1, offset = 0;

  bool scaled() const { return scale != 1 || offset != 0; }
};

// Throws Error(input) naming file, variable and attribute where it cannot be made sense of.
Packing read_packing(int file, int id, int type, const std::string& where);

// An uninitialised tensor whose elements are as wide as the type's.
at::Tensor raw_numbers(const std::vector<int64_t>& shape, int type);

// The values of numbers as they are stored (raw_numbers) as kFloat or kDouble; NaN is missing.
at::Tensor decode(const at::Tensor& stored, const Packing& packing, at::ScalarType dtype);
// As int64 with missing in place of what is missing. Error(input) where a value is not whole.
at::Tensor decode_integers(const at::Tensor& stored, const Packing& packing, int64_t missing);

}  // namespace halcyon::netcdf_detail
