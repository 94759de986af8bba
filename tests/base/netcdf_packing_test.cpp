// SPDX-License-Identifier: Apache-2.0
// What the attributes of a variable say about its numbers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <netcdf.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

template <typename T>
constexpr nc_type kType = NC_NAT;
template <>
constexpr nc_type kType<int8_t> = NC_BYTE;
template <>
constexpr nc_type kType<uint8_t> = NC_UBYTE;
template <>
constexpr nc_type kType<int16_t> = NC_SHORT;
template <>
constexpr nc_type kType<uint16_t> = NC_USHORT;
template <>
constexpr nc_type kType<int32_t> = NC_INT;
template <>
constexpr nc_type kType<int64_t> = NC_INT64;
template <>
constexpr nc_type kType<uint64_t> = NC_UINT64;
template <>
constexpr nc_type kType<float> = NC_FLOAT;
template <>
constexpr nc_type kType<double> = NC_DOUBLE;

struct Attribute {
  std::string name, text;
  nc_type type = NC_NAT;
  std::size_t count = 0;
  std::vector<char> bytes = {};
};

template <typename T>
Attribute number(const std::string& name, std::vector<T> values) {
  Attribute a{name, "", kType<T>, values.size()};
  const auto* first = reinterpret_cast<const char*>(values.data());
  a.bytes.assign(first, first + values.size() * sizeof(T));
  return a;
}
template <typename T>
Attribute number(const std::string& name, T value) {
  return number<T>(name, std::vector<T>{value});
}
Attribute words(const std::string& name, const std::string& text) {
  return {name, text};
}

class NetcdfPacking : public testing::Test {
 protected:
  // A file with the variable v of these numbers and attributes. _FillValue may be of another type
  // than the numbers, as files of other libraries have it.
  template <typename T>
  void write(const std::vector<T>& stored, const std::vector<Attribute>& attributes) {
    int id = 0, x = 0, v = 0;
    ASSERT_EQ(nc_create(path().c_str(), NC_NETCDF4 | NC_CLOBBER, &id), NC_NOERR);
    ASSERT_EQ(nc_def_dim(id, "x", stored.size(), &x), NC_NOERR);
    ASSERT_EQ(nc_def_var(id, "v", kType<T>, 1, &x, &v), NC_NOERR);
    for (const auto& a : attributes) {
      const char* name = a.name.c_str();
      const char nothing = 0;
      const int status = a.type == NC_NAT
                             ? nc_put_att_text(id, v, name, a.text.size(), a.text.data())
                             : nc_put_att(id, v, name, a.type, a.count,
                                          a.bytes.empty() ? &nothing : a.bytes.data());
      ASSERT_EQ(status, NC_NOERR) << name << ": " << nc_strerror(status);
    }
    ASSERT_EQ(nc_enddef(id), NC_NOERR);
    ASSERT_EQ(nc_put_var(id, v, stored.data()), NC_NOERR);
    ASSERT_EQ(nc_close(id), NC_NOERR);
  }

  template <typename T>
  void expect(const std::vector<T>& stored, const std::vector<Attribute>& attributes,
              const std::vector<double>& values, int line) {
    write(stored, attributes);
    const NetcdfReader file(path());
    for (const auto dtype : {at::kDouble, at::kFloat}) {
      const auto got = file.read_physical("v", dtype).to(at::kDouble);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double x = got[static_cast<int64_t>(i)].template item<double>();
        if (std::isnan(values[i])) {
          EXPECT_TRUE(std::isnan(x)) << "line " << line << ": " << i << " is " << x;
        } else {
          EXPECT_NEAR(x, values[i], (dtype == at::kFloat ? 1e-6 : 1e-12) * std::abs(values[i]))
              << "line " << line << ": " << i;
        }
      }
    }
  }

  template <typename T>
  std::string refusal(const std::vector<T>& stored, const std::vector<Attribute>& attributes) {
    write(stored, attributes);
    const NetcdfReader file(path());
    try {
      file.read_physical("v", at::kDouble);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::input);
      EXPECT_NE(std::string(e.what()).find("p.nc: variable v"), std::string::npos) << e.what();
      return e.what();
    }
    return "none";
  }

  std::filesystem::path path() const { return folder_ / "p.nc"; }

 private:
  test::TemporaryFolder folder_;
};

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr auto kMost64 = std::numeric_limits<int64_t>::max();
using Shorts = std::vector<int16_t>;
using Bytes = std::vector<int8_t>;

TEST_F(NetcdfPacking, MarksAreOfTheVariablesType) {
  expect<float>({1, -9999.9F}, {number("missing_value", -9999.9)}, {1, kNone}, __LINE__);
  expect<float>({1, 1e20F}, {number("missing_value", 1e20)}, {1, kNone}, __LINE__);
  expect<float>({1, -9999}, {number("missing_value", int16_t{-9999})}, {1, kNone}, __LINE__);
  expect<float>({1, 3.40282347e38F, INFINITY}, {number("missing_value", 3.40282357e38)},
                {1, kNone, kNone}, __LINE__);
  expect<double>({1, -9999.9, -9999.900390625}, {number("missing_value", -9999.9F)},
                 {1, kNone, kNone}, __LINE__);
  expect<double>({1, -9999.9}, {number("_FillValue", -9999.9)}, {1, kNone}, __LINE__);
  expect<int16_t>({1, -99}, {number("missing_value", -99.0)}, {1, kNone}, __LINE__);
  expect<float>({1, -99}, {words("missing_value", " -99 ")}, {1, kNone}, __LINE__);
  // NaN is missing, marked or not
  expect<float>({1, NAN}, {number("_FillValue", NAN)}, {1, kNone}, __LINE__);
  expect<float>({1, NAN, -9}, {number("_FillValue", -9.0F)}, {1, kNone, kNone}, __LINE__);
  // of what the numbers cannot be, none is
  expect<int16_t>({0, 1}, {number("missing_value", NAN)}, {0, 1}, __LINE__);
  expect<int8_t>({0, -15}, {number("missing_value", -9999)}, {0, -15}, __LINE__);
}

TEST_F(NetcdfPacking, SeveralMarks) {
  expect<int16_t>({1, 2, 3, 4},
                  {number("_FillValue", int16_t{1}), number<double>("missing_value", {2, 3})},
                  {kNone, kNone, kNone, 4}, __LINE__);
  expect<int16_t>({1, -32767},
                  {number("_FillValue", int16_t{-32767}), number("missing_value", int16_t{-32767}),
                   number("scale_factor", 0.5), number("add_offset", 10.0)},
                  {10.5, kNone}, __LINE__);
  expect<float>({1, 2}, {number<float>("missing_value", std::vector<float>{})}, {1, 2}, __LINE__);
}

TEST_F(NetcdfPacking, WhatWasNeverWritten) {
  expect<int16_t>({1, NC_FILL_SHORT}, {}, {1, kNone}, __LINE__);
  expect<int32_t>({1, NC_FILL_INT}, {number("missing_value", 5)}, {1, kNone}, __LINE__);
  expect<float>({1, NC_FILL_FLOAT}, {}, {1, kNone}, __LINE__);
  expect<double>({1, NC_FILL_DOUBLE}, {}, {1, kNone}, __LINE__);
  expect<uint16_t>({1, NC_FILL_USHORT}, {}, {1, kNone}, __LINE__);
  // another fill value was said, and bytes have none
  expect<int16_t>({1, NC_FILL_SHORT}, {number("_FillValue", int16_t{0})}, {1, NC_FILL_SHORT},
                  __LINE__);
  expect<int8_t>({1, NC_FILL_BYTE}, {}, {1, NC_FILL_BYTE}, __LINE__);
  expect<uint8_t>({1, NC_FILL_UBYTE}, {}, {1, NC_FILL_UBYTE}, __LINE__);
}

TEST_F(NetcdfPacking, MarksThatNoDoubleHolds) {
  expect<int64_t>({kMost64, kMost64 - 1}, {number("_FillValue", kMost64)},
                  {kNone, static_cast<double>(kMost64)}, __LINE__);
  expect<uint64_t>({std::numeric_limits<uint64_t>::max(), 1, NC_FILL_UINT64},
                   {number("missing_value", std::numeric_limits<uint64_t>::max())},
                   {kNone, 1, kNone}, __LINE__);
}

TEST_F(NetcdfPacking, Unsigned) {
  const auto sign = words("_Unsigned", "true");
  expect<int16_t>({10000, -27386},
                  {sign, number("scale_factor", 0.001), number("add_offset", 250.0)}, {260, 288.15},
                  __LINE__);
  expect<int8_t>({0, 127, -128, -1}, {sign, number("_FillValue", int8_t{-1})}, {0, 127, 128, kNone},
                 __LINE__);
  expect<int8_t>({0, -1}, {sign, number("missing_value", int16_t{255})}, {0, kNone}, __LINE__);
  expect<int8_t>({0, -56, -55, -1}, {sign, number<int8_t>("valid_range", {0, -56})},
                 {0, 200, kNone, kNone}, __LINE__);
  expect<int8_t>({10, -56, -1}, {sign, number<int16_t>("valid_range", {20, 200})},
                 {kNone, 200, kNone}, __LINE__);
  expect<int8_t>({-1}, {words("_Unsigned", "True")}, {255}, __LINE__);
  expect<int8_t>({-1}, {words("_Unsigned", "false")}, {-1}, __LINE__);
  expect<uint8_t>({255}, {words("_Unsigned", "false")}, {-1}, __LINE__);
  expect<int64_t>({-1}, {sign}, {18446744073709551615.0}, __LINE__);
  EXPECT_NE(refusal<int8_t>({1}, {words("_Unsigned", "perhaps")}).find("_Unsigned"),
            std::string::npos);
  // 65535 of signed numbers: only where the bits occur does it matter
  expect<int16_t>({0, 7}, {number("missing_value", 65535)}, {0, 7}, __LINE__);
  EXPECT_NE(refusal<int16_t>({0, -1}, {number("missing_value", 65535)}).find("_Unsigned"),
            std::string::npos);
}

TEST_F(NetcdfPacking, ScaleAndOffset) {
  expect<int16_t>({1, 2}, {number("scale_factor", 0.5)}, {0.5, 1}, __LINE__);
  expect<int16_t>({1, 2}, {number("add_offset", 10)}, {11, 12}, __LINE__);
  expect<int16_t>({1, 2}, {number("scale_factor", int8_t{10}), number("add_offset", 0.25F)},
                  {10.25, 20.25}, __LINE__);
  // in double: 0.01F is not 0.01, and a million times it is what the file says
  expect<int32_t>({1000001}, {number("scale_factor", 0.01F)}, {1000001 * double{0.01F}}, __LINE__);
  expect<float>({1, 2}, {number("scale_factor", 2.0), number("add_offset", 1.0)}, {3, 5}, __LINE__);
  const std::pair<Attribute, const char*> wrong[] = {
      {number("scale_factor", 0.0), "scale_factor: expected a number other than 0, got 0"},
      {number("scale_factor", std::nan("")), "scale_factor: expected a number other than 0"},
      {words("scale_factor", "0.1"), "scale_factor: expected a number, got the text \"0.1\""},
      {number<double>("scale_factor", std::vector<double>{}), "expected one number, got 0"},
      {number<double>("scale_factor", {1, 2}), "scale_factor: expected one number, got 2"},
      {number("add_offset", INFINITY), "add_offset: expected a finite number"},
      {words("add_offset", ""), "add_offset: expected a number, got the text \"\""},
      {words("missing_value", "none"), "missing_value: expected numbers, got the text \"none\""},
      {number("valid_range", int16_t{1}), "valid_range: expected two numbers, got 1"},
      {number<int16_t>("valid_range", {2, 1}), "valid_range: expected the smaller number first"},
      {words("valid_range", "0 1"), "valid_range: expected numbers"},
      {words("valid_min", "0"), "valid_min: expected a number"}};
  for (const auto& [attribute, part] : wrong)
    EXPECT_NE(refusal<int16_t>({1}, {attribute}).find(part), std::string::npos)
        << refusal<int16_t>({1}, {attribute});
}

TEST_F(NetcdfPacking, RangesOfStoredNumbersOrOfValues) {
  const auto scale = number("scale_factor", 0.1), offset = number("add_offset", 250.0);
  const Shorts stored = {-100, 0, 300, 301, 3000};
  // of the type of the stored numbers
  expect<int16_t>(stored, {scale, offset, number<int16_t>("valid_range", {0, 300})},
                  {kNone, 250, 280, kNone, kNone}, __LINE__);
  expect<int16_t>(stored, {scale, offset, number("valid_min", int16_t{0})},
                  {kNone, 250, 280, 280.1, 550}, __LINE__);
  expect<int16_t>(stored, {scale, offset, number("valid_max", 300)}, {240, 250, 280, kNone, kNone},
                  __LINE__);
  // of the type of scale and offset; 280 itself is inside
  expect<int16_t>(stored, {scale, offset, number<double>("valid_range", {250, 280})},
                  {kNone, 250, 280, kNone, kNone}, __LINE__);
  expect<int16_t>(stored,
                  {number("scale_factor", -0.1), offset, number<double>("valid_range", {220, 250})},
                  {kNone, 250, 220, kNone, kNone}, __LINE__);
  expect<int16_t>({0, 300, 301}, {number("scale_factor", 0.1F), number("valid_max", 30.0F)},
                  {0, 300 * double{0.1F}, kNone}, __LINE__);
  expect<float>({1, 2, 3}, {number("scale_factor", 10.0), number("valid_max", 20.0)},
                {10, 20, kNone}, __LINE__);
  // without scale there is only one reading
  expect<float>({0.1F, 0.2F}, {number("valid_max", 0.1)}, {0.1F, kNone}, __LINE__);
  expect<int16_t>({0, 1, 2}, {number("valid_min", 0.5)}, {kNone, 1, 2}, __LINE__);
  expect<int8_t>({0, 1, -1}, {number<int32_t>("valid_range", {0, 300})}, {0, 1, kNone}, __LINE__);
  // of neither type: it must not matter
  expect<int16_t>({0, 100}, {scale, offset, number("valid_max", 1000.0F)}, {250, 260}, __LINE__);
  EXPECT_NE(refusal<int16_t>({0, 100}, {scale, offset, number("valid_max", 255.0F)})
                .find("valid_range is neither of the type"),
            std::string::npos);
  // a mark within the range is missing all the same
  expect<int16_t>({0, 5},
                  {number("missing_value", int16_t{5}), number<int16_t>("valid_range", {0, 9})},
                  {0, kNone}, __LINE__);
}

TEST_F(NetcdfPacking, MarksThatAreMeantUnpacked) {
  const auto scale = number("scale_factor", 0.1);
  expect<int16_t>({-9999, 5}, {scale, number("missing_value", -999.9)}, {kNone, 0.5}, __LINE__);
  expect<int16_t>({-9999, 5}, {scale, number("missing_value", -999.9F)}, {kNone, 0.5}, __LINE__);
  expect<int16_t>({-9990, 5}, {scale, number("missing_value", -999.0)}, {kNone, 0.5}, __LINE__);
  expect<int16_t>({100, 5}, {scale, number("missing_value", 1e20)}, {10, 0.5}, __LINE__);
}

TEST_F(NetcdfPacking, WholeNumbers) {
  write<int64_t>({kMost64, kMost64 - 1, 3}, {number("_FillValue", kMost64)});
  const auto read = [&] { return NetcdfReader(path()).read_integers("v", -5); };
  EXPECT_TRUE(read().equal(at::tensor({int64_t{-5}, kMost64 - 1, int64_t{3}}, at::kLong)));
  write<int16_t>({1, -1}, {number("scale_factor", 2.0), number("missing_value", int16_t{-1})});
  EXPECT_TRUE(read().equal(at::tensor({2, -5}, at::kLong)));
  write<double>({4, NAN}, {});
  EXPECT_TRUE(read().equal(at::tensor({4, -5}, at::kLong)));
  write<double>({4.5}, {});
  EXPECT_THROW(read(), Error);
  write<uint64_t>({std::numeric_limits<uint64_t>::max()}, {});
  EXPECT_THROW(read(), Error);
}

TEST_F(NetcdfPacking, TextThatIsMissing) {
  int id = 0, x = 0, width = 0, names = 0, texts = 0;
  ASSERT_EQ(nc_create(path().c_str(), NC_NETCDF4 | NC_CLOBBER, &id), NC_NOERR);
  nc_def_dim(id, "x", 2, &x);
  nc_def_dim(id, "width", 3, &width);
  const int dims[] = {x, width};
  nc_def_var(id, "names", NC_CHAR, 2, dims, &names);
  nc_def_var(id, "texts", NC_STRING, 1, &x, &texts);
  const char fill = '-';
  nc_put_att(id, names, "_FillValue", NC_CHAR, 1, &fill);
  nc_put_att_text(id, texts, "missing_value", 3, "n/a");
  nc_enddef(id);
  const std::size_t start[] = {0, 0}, count[] = {1, 3};
  nc_put_vara_text(id, names, start, count, "A-B");  // the second is never written
  const char* words_of[] = {"n/a", "here"};
  nc_put_var_string(id, texts, words_of);
  ASSERT_EQ(nc_close(id), NC_NOERR);
  const NetcdfReader file(path());
  EXPECT_EQ(file.read_strings("names"), (std::vector<std::string>{"A-B", ""}));
  EXPECT_EQ(file.read_strings("texts"), (std::vector<std::string>{"", "here"}));
}

}  // namespace
}  // namespace halcyon
