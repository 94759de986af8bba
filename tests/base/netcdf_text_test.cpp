// SPDX-License-Identifier: Apache-2.0
// Text in NetCDF files is UTF-8 once it is read, whatever it was, and always when it is written.
#include <gtest/gtest.h>
#include <netcdf.h>

#include <cstring>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf.h"
#include "halcyon/base/text.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;

// Two names of six characters, with an _Encoding where one is given.
void write_names(const fs::path& path, const char* bytes, const char* encoding) {
  int id, dims[2], name;
  ASSERT_EQ(nc_create(path.c_str(), NC_CLOBBER, &id), NC_NOERR);
  nc_def_dim(id, "station", 2, &dims[0]);
  nc_def_dim(id, "length", 6, &dims[1]);
  nc_def_var(id, "name", NC_CHAR, 2, dims, &name);
  if (encoding) nc_put_att_text(id, name, "_Encoding", std::strlen(encoding), encoding);
  nc_put_att_text(id, name, "units", 2,
                  "\xB0"
                  "C");
  nc_enddef(id);
  nc_put_var_text(id, name, bytes);
  ASSERT_EQ(nc_close(id), NC_NOERR);
}

TEST(NetcdfText, BecomesUtf8) {
  const test::TemporaryFolder folder;
  const char* const latin =
      "Qu\xE9"
      "becOslo\0";
  const char* const utf8 = "Malm\xC3\xB6Oslo\0";
  const auto read = [&](const char* bytes, const char* encoding) {
    write_names(folder / "n.nc", bytes, encoding);
    return NetcdfReader(folder / "n.nc").read_strings("name");
  };
  const std::vector<std::string> quebec{"Qu\u00e9bec", "Oslo"}, malmoe{"Malm\u00f6", "Oslo"};
  EXPECT_EQ(read(latin, nullptr), quebec);
  EXPECT_EQ(read(latin, "ISO-8859-1"), quebec);
  EXPECT_EQ(read(utf8, nullptr), malmoe);
  EXPECT_EQ(read(utf8, "utf-8"), malmoe);
  EXPECT_EQ(read(utf8, "latin1")[0], "Malm\u00c3\u00b6");  // the file says so
  EXPECT_EQ(read("BostonOslo\0", "koi8-r")[0], "Boston");
  EXPECT_EQ(NetcdfReader(folder / "n.nc").text("name", "units"), "\u00b0C");
  EXPECT_EQ(NetcdfReader(folder / "n.nc").texts("name").at("units"), "\u00b0C");
  try {
    read(latin, "koi8-r");
    ADD_FAILURE() << "an unknown encoding was read";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::input);
    EXPECT_NE(std::string(e.what()).find("got the _Encoding koi8-r"), std::string::npos)
        << e.what();
  }
}

TEST(NetcdfText, IsWrittenAsUtf8) {
  const test::TemporaryFolder folder;
  write_netcdf(folder / "o.nc", [](NetcdfWriter& out) {
    out.dimension("n", 1);
    out.string_variable("s", {"n"});
    out.attribute("", "source", "Qu\xE9.csv");
    out.write_strings("s", {"Qu\xE9"});
  });
  const NetcdfReader file(folder / "o.nc");
  EXPECT_EQ(file.text("", "source"), "Qu\\xE9.csv");
  EXPECT_EQ(file.read_strings("s"), std::vector<std::string>{"Qu\\xE9"});
}

}  // namespace
}  // namespace halcyon
