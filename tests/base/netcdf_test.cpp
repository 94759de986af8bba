// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/netcdf.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <netcdf.h>
#include <zlib.h>

#include <random>

#include "halcyon/base/error.h"
#include "halcyon/base/files.h"
#include "halcyon/base/gzip.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using test::identical;

// A classic file with a record dimension, written by netcdf-c itself.
void write_classic(const fs::path& path, int mode, std::size_t records) {
  int id, time, name, dims[2], t, v, s;
  ASSERT_EQ(nc_create(path.c_str(), NC_CLOBBER | mode, &id), NC_NOERR);
  nc_def_dim(id, "time", NC_UNLIMITED, &time);
  nc_def_dim(id, "length", 5, &name);
  dims[0] = time;
  dims[1] = name;
  nc_def_var(id, "t", NC_SHORT, 1, &time, &t);
  nc_def_var(id, "station", NC_CHAR, 2, dims, &s);
  nc_def_var(id, "pi", NC_DOUBLE, 0, nullptr, &v);
  const double scale = 0.5, offset = 10;
  const short fill = -9, most = 100;
  nc_put_att_double(id, t, "scale_factor", NC_DOUBLE, 1, &scale);
  nc_put_att_double(id, t, "add_offset", NC_DOUBLE, 1, &offset);
  nc_put_att_short(id, t, "_FillValue", NC_SHORT, 1, &fill);
  nc_put_att_short(id, t, "valid_max", NC_SHORT, 1, &most);
  nc_put_att_text(id, t, "units", 1, "K");
  nc_enddef(id);
  const short values[] = {4, -9, 6, 101};
  const std::size_t start[] = {0, 0}, count[] = {records, 5};
  nc_put_vara_short(id, t, start, count, values);
  nc_put_vara_text(id, s, start, count, "KJFK\0B   \0CDEFG     ");
  const double pi = 3.25;
  nc_put_var_double(id, v, &pi);
  ASSERT_EQ(nc_close(id), NC_NOERR);
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

std::vector<std::byte> bytes_of(const fs::path& path) {
  const auto text = read_text(path);
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

// Reads everything that a file announces.
void read_all(const NetcdfReader& file) {
  file.texts("");
  for (const auto& v : file.variables()) {
    file.texts(v.name);
    if (v.kind == NetcdfKind::number) {
      file.read_physical(v.name, at::kDouble);
    } else if (v.kind != NetcdfKind::unsupported) {
      file.read_strings(v.name);
    }
  }
}

TEST(Netcdf, ReadsEveryClassicFormat) {
  const test::TemporaryFolder folder;
  for (const int mode : {0, NC_64BIT_OFFSET, NC_64BIT_DATA, NC_NETCDF4}) {
    write_classic(folder / "a.nc", mode, 4);
    const NetcdfReader from_disk(folder / "a.nc");
    const NetcdfReader from_memory(bytes_of(folder / "a.nc"), "memory");
    for (const auto* file : {&from_disk, &from_memory}) {
      EXPECT_EQ(file->dimension("time"), 4);
      EXPECT_TRUE(file->dimensions()[0].unlimited);
      EXPECT_TRUE(identical(file->read("t"), at::tensor({4, -9, 6, 101}, at::kShort)));
      const auto physical = file->read_physical("t", at::kFloat);
      const auto expected = at::tensor({12.f, NAN, 13.f, NAN});
      EXPECT_TRUE(identical(physical, expected));
      EXPECT_EQ(file->read_strings("station"),
                (std::vector<std::string>{"KJFK", "B", "CDEFG", ""}));
      EXPECT_EQ(file->read("pi").item<double>(), 3.25);
      EXPECT_EQ(file->text("t", "units"), "K");
      EXPECT_EQ(file->text("t", "_FillValue"), std::nullopt);
      EXPECT_EQ(file->numbers("t", "_FillValue"), std::vector<double>{-9});
      EXPECT_TRUE(identical(file->read("t", {1}, {2}), at::tensor({-9, 6}, at::kShort)));
    }
  }
}

TEST(Netcdf, NamesWhatIsWrong) {
  const test::TemporaryFolder folder;
  write_classic(folder / "a.nc", 0, 4);
  const NetcdfReader file(folder / "a.nc");
  EXPECT_NE(message_of([&] { file.read("q"); }).find("no variable q; it has t, station, pi"),
            std::string::npos);
  EXPECT_NE(message_of([&] { file.read("station"); }).find("expected numbers"), std::string::npos);
  EXPECT_NE(message_of([&] { file.read("t", {3}, {2}); }).find("within 4 along time"),
            std::string::npos);
  EXPECT_NE(message_of([&] { NetcdfReader(folder / "none.nc"); }).find("none.nc"),
            std::string::npos);
  write_text(folder / "b.nc", "CDF");
  EXPECT_NE(message_of([&] { NetcdfReader(folder / "b.nc"); }).find("not a NetCDF file"),
            std::string::npos);
  write_text(folder / "empty.nc", "");
  EXPECT_NE(message_of([&] { NetcdfReader(folder / "empty.nc"); }).find("not a NetCDF file"),
            std::string::npos);
}

TEST(Netcdf, WritesAndReadsBack) {
  const test::TemporaryFolder folder;
  const auto data = at::randn({4, 3}).t();  // strided
  write_netcdf(folder / "x.nc", [&](NetcdfWriter& w) {
    w.dimension("time", NetcdfWriter::kUnlimited);
    w.dimension("x", 4);
    w.dimension("none", 0);
    w.variable("f", at::kFloat, {"time", "x"}, {.fill = -1.0, .chunks = {1, 4}});
    w.variable("n", at::kLong, {"x"});
    w.variable("b", at::kBool, {"x"});
    w.variable("s", at::kDouble, {});
    w.variable("e", at::kDouble, {"none"});
    w.string_variable("id", {"x"});
    w.attribute("f", "units", "K");
    w.attribute("", "title", "a title");
    w.attribute("", "count", int64_t{1} << 40);
    w.write("f", data.slice(0, 0, 2));
    w.write("f", data.slice(0, 2, 3), {2, 0});
    w.write("n", at::tensor({int64_t{1} << 60, int64_t{2}, int64_t{3}, int64_t{-4}}));
    w.write("b", at::tensor({1, 0, 0, 1}).to(at::kBool));
    w.write("s", at::scalar_tensor(2.5, at::kDouble));
    w.write("e", at::empty({0}, at::kDouble));
    w.write_strings("id", {"a", "", "long name", "ü"});
  });
  const NetcdfReader file(folder / "x.nc");
  EXPECT_TRUE(identical(file.read("f"), data.contiguous()));
  EXPECT_EQ(file.read("n")[0].item<int64_t>(), int64_t{1} << 60);
  EXPECT_TRUE(identical(file.read("b"), at::tensor({1, 0, 0, 1}, at::kChar)));
  EXPECT_EQ(file.read("s").item<double>(), 2.5);
  EXPECT_EQ(file.read("e").numel(), 0);
  EXPECT_EQ(file.read_strings("id"), (std::vector<std::string>{"a", "", "long name", "ü"}));
  EXPECT_EQ(file.text("", "title"), "a title");
  EXPECT_EQ(file.numbers("", "count"), std::vector<double>{std::ldexp(1.0, 40)});
  EXPECT_EQ(file.texts("f").at("units"), "K");
}

TEST(Netcdf, WriterRefusesWhatDoesNotFit) {
  const test::TemporaryFolder folder;
  const auto attempt = [&](const std::function<void(NetcdfWriter&)>& f) {
    return message_of([&] {
      write_netcdf(folder / "y.nc", [&](NetcdfWriter& w) {
        w.dimension("x", 4);
        w.variable("f", at::kFloat, {"x"});
        f(w);
      });
    });
  };
  EXPECT_NE(attempt([](auto& w) { w.write("f", at::zeros({3})); }).find("within [4], got [3]"),
            std::string::npos);
  EXPECT_NE(attempt([](auto& w) {
              w.write("f", at::zeros({4}, at::kDouble));
            }).find("expected Float, got Double"),
            std::string::npos);
  EXPECT_NE(attempt([](auto& w) { w.variable("g", at::kFloat, {"y"}); }).find("no dimension y"),
            std::string::npos);
  EXPECT_NE(attempt([](auto& w) { w.variable("h", at::kHalf, {"x"}); }).find("got Half"),
            std::string::npos);
  EXPECT_NE(attempt([](auto& w) { w.write("z", at::zeros({4})); }).find("no variable z"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "y.nc"));
  EXPECT_NE(message_of([&] { write_netcdf(folder / "no/z.nc", [](auto&) {}); }).find("z.nc"),
            std::string::npos);
}

TEST(Netcdf, TruncatedClassicFilesAreRefused) {
  const test::TemporaryFolder folder;
  for (const int mode : {0, NC_64BIT_OFFSET, NC_64BIT_DATA}) {
    write_classic(folder / "a.nc", mode, 4);
    const auto whole = bytes_of(folder / "a.nc");
    // the padding of the last record may go
    for (std::size_t size = 0; size + 4 < whole.size(); ++size) {
      EXPECT_THROW(NetcdfReader({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)},
                                "cut.nc"),
                   Error)
          << size;
    }
  }
}

TEST(Netcdf, FlippedBitsNeverCrash) {
  const test::TemporaryFolder folder;
  std::mt19937 random(7);
  for (const int mode : {0, NC_64BIT_OFFSET, NC_64BIT_DATA}) {
    write_classic(folder / "a.nc", mode, 4);
    const auto whole = bytes_of(folder / "a.nc");
    for (int i = 0; i < 3000; ++i) {
      auto bytes = whole;
      for (int flips = 1 + i % 3; flips > 0; --flips)
        bytes[random() % bytes.size()] ^= std::byte(1 << random() % 8);
      try {
        read_all(NetcdfReader(std::move(bytes), "flipped.nc"));
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::input);
        EXPECT_NE(std::string(e.what()).find("flipped.nc"), std::string::npos) << e.what();
      }
    }
  }
}

TEST(Netcdf, DamagedHdf5NeverCrashes) {
  const test::TemporaryFolder folder;
  write_netcdf(folder / "a.nc", [](NetcdfWriter& w) {
    w.dimension("x", 30);
    w.variable("f", at::kFloat, {"x"});
    w.string_variable("id", {"x"});
    w.write("f", at::arange(30, at::kFloat));
    w.write_strings("id", std::vector<std::string>(30, "a station"));
  });
  const auto whole = bytes_of(folder / "a.nc");
  std::mt19937 random(11);
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    auto bytes = whole;
    if (i % 4 == 0) bytes.resize(random() % bytes.size());
    for (int flips = i % 4; flips > 0; --flips)
      bytes[random() % bytes.size()] ^= std::byte(1 << random() % 8);
    try {
      read_all(NetcdfReader(std::move(bytes), "damaged.nc"));
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::input);
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

std::vector<std::byte> gzipped(std::string_view text) {
  std::vector<std::byte> out(text.size() + 64);
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

TEST(Gzip, UnpacksMembersAndRefusesDamage) {
  const std::string text(200000, 'x');
  auto packed = gzipped(text);
  const auto unpacked = gunzip(packed, "a.gz");
  ASSERT_EQ(unpacked.size(), text.size());
  EXPECT_EQ(unpacked.back(), std::byte{'x'});
  auto two = packed;
  const auto second = gzipped("end");
  two.insert(two.end(), second.begin(), second.end());
  EXPECT_EQ(gunzip(two, "a.gz").size(), text.size() + 3);
  two.resize(two.size() + 9);
  EXPECT_EQ(gunzip(two, "a.gz").size(), text.size() + 3);
  two.back() = std::byte{1};
  EXPECT_NE(message_of([&] { gunzip(two, "a.gz"); }).find("after the end"), std::string::npos);
  EXPECT_NE(message_of([&] { gunzip(packed, "a.gz", 1000); }).find("more than 1000 bytes"),
            std::string::npos);
  EXPECT_EQ(gunzip(packed, "a.gz", text.size()).size(), text.size());
  for (std::size_t size = 0; size < packed.size(); ++size)
    EXPECT_THROW(gunzip(std::span(packed).first(size), "a.gz"), Error) << size;
  packed[packed.size() - 6] ^= std::byte{1};  // CRC
  EXPECT_NE(message_of([&] { gunzip(packed, "a.gz"); }).find("corrupt"), std::string::npos);
}

TEST(Netcdf, ReadsGzippedFiles) {
  const test::TemporaryFolder folder;
  write_classic(folder / "a.nc", 0, 4);
  const auto packed = gzipped(read_text(folder / "a.nc"));
  write_text(folder / "a.nc.gz", {reinterpret_cast<const char*>(packed.data()), packed.size()});
  EXPECT_EQ(NetcdfReader(folder / "a.nc.gz").read("pi").item<double>(), 3.25);
}

}  // namespace
}  // namespace halcyon
