// SPDX-License-Identifier: Apache-2.0
// halcyon analyze on files that are cut, changed or lie about their sizes.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/base/time.h"
#include "halcyon/obs/observation_file.h"
#include "halcyon/obs/variables.h"
#include "halcyon/state/read_fields.h"
#include "halcyon/state/write_fields.h"
#include "tests/apps/small_runs.h"

namespace halcyon {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class BadInputCli : public testing::Test {
 protected:
  static const test::SmallRuns& runs() {
    static const test::SmallRuns small;
    return small;
  }

  static std::string content(const std::string& name) { return read_text(runs().file(name)); }

  static void put(const std::string& name, std::string_view bytes) {
    std::ofstream(runs().file(name), std::ios::binary) << bytes;
  }

  // The run ends with the code, a message that names the file, and no product.
  static void expect_refused(const std::string& name, const std::string& options, int code = 4) {
    const auto result = runs().run("analyze", "--set output={}/refused " + options);
    EXPECT_EQ(result.code, code) << name << "\n" << result.output;
    EXPECT_THAT(result.output, AllOf(HasSubstr("halcyon: error: "), HasSubstr(name),
                                     Not(HasSubstr("a fault of Halcyon"))));
    EXPECT_FALSE(fs::exists(runs().file("refused"))) << name;
  }
  static void refused_checkpoint(const std::string& name, std::string_view bytes) {
    put(name, bytes);
    expect_refused(name, "--set checkpoint={}/" + name);
  }
  static void refused_observations(const std::string& name, std::string_view bytes) {
    put(name, bytes);
    expect_refused(name, "--set observations.files={}/" + name +
                             " --set observations.stations={}/city_stations.csv");
  }
  static void refused_fields(const std::string& name, std::string_view bytes) {
    put(name, bytes);
    auto system = content("system.yaml");
    system.replace(system.find("air.nc"), 6, name);
    put("other_system.yaml", system);
    expect_refused(name, "--set system={}/other_system.yaml");
  }

  // A safetensors file with this header and eight bytes of data.
  static std::string safetensors(const std::string& header) {
    std::string bytes;
    for (std::size_t shift = 0; shift < 64; shift += 8)
      bytes += static_cast<char>(header.size() >> shift & 255);
    return bytes + header + std::string(8, '\0');
  }

  // A classic NetCDF file with one variable of so many floats, of which it holds none.
  static std::string lying_netcdf(unsigned size) {
    std::string bytes = "CDF\x01";
    const auto number = [&](unsigned n) {
      for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(n >> shift & 255);
    };
    const auto numbers = [&](std::initializer_list<unsigned> list) {
      for (const unsigned n : list) number(n);
    };
    numbers({0, 10, 1, 3});
    bytes += std::string("lat\0", 4);
    numbers({size, 0, 0, 11, 1, 3});
    bytes += std::string("air\0", 4);
    numbers({1, 0, 0, 0, 5, size * 4, 84});
    return bytes;
  }
};

TEST_F(BadInputCli, Checkpoints) {
  const auto good = content("weights.safetensors");
  refused_checkpoint("half.safetensors", good.substr(0, good.size() / 2));
  refused_checkpoint("head.safetensors", good.substr(0, 5));
  refused_checkpoint("none.safetensors", "");
  refused_checkpoint("long_header.safetensors", std::string(8, '\xff') + good.substr(8));
  refused_checkpoint(
      "offsets.safetensors",
      safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4000000000000]}})"));
  refused_checkpoint(
      "shape.safetensors",
      safetensors(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})"));
  refused_checkpoint("text.mdlus", "no checkpoint at all");
  refused_checkpoint("zip.mdlus", std::string("PK\x03\x04", 4) + std::string(200, 'x'));
}

TEST_F(BadInputCli, TruncatedMdlus) {
  HALCYON_NEEDS_SHARED();
  const auto good = read_text(test::shared_dir() / "golden/healda/healda_tiny.mdlus");
  for (const auto part : {2, 10, 100})
    refused_checkpoint("cut.mdlus", good.substr(0, good.size() * (part - 1) / part));
  // whole, but of another system
  put("other.mdlus", good);
  expect_refused("small world", "--set checkpoint={}/other.mdlus", 3);
}

TEST_F(BadInputCli, ANetworkThatIsNotFiniteStopsTheRun) {
  auto weights = read_safetensors(runs().file("weights.safetensors"));
  for (auto& [name, tensor] : weights.tensors)
    if (tensor.is_floating_point()) tensor = at::full_like(tensor, std::nan(""));
  write_safetensors(runs().file("nan.safetensors"), weights);
  expect_refused("nan.safetensors", "--set checkpoint={}/nan.safetensors", 6);
}

TEST_F(BadInputCli, ObservationTables) {
  const auto good = content("city_t2m.csv");
  refused_observations("city_cut.csv", good.substr(0, good.rfind(',')));
  refused_observations("city_text.csv", "datetime,Alba\n2014-02-01T00,warm\n");
  refused_observations("city_quote.csv", "datetime,Alba\n2014-02-01T00,\"280\n");
  const std::string nul(1, '\0');
  refused_observations("city_nul.csv", "datetime,Alba\n2014-02-01T00,2" + nul + "80\n");
  refused_observations("city_time.csv", "datetime,Alba\n2014-02-31T00,280\n");
  refused_observations("city_unknown.csv", "datetime,Atlantis\n2014-02-01T00,280\n");
  refused_observations("city_empty.csv", "");
  put("places.csv", "station,lat,lon\nAlba,95,-117\n");
  put("city_alba.csv", "datetime,Alba\n2014-02-01T00,280\n");
  expect_refused("places.csv:2",
                 "--set observations.files={}/city_alba.csv "
                 "--set observations.stations={}/places.csv");
}

TEST_F(BadInputCli, ObservationNetcdf) {
  const auto time = parse_time("2014-02-01T00") * 1'000'000'000;
  const auto row = [](double x) { return at::full({50}, x, at::kDouble); };
  obs::write_observations(runs().file("obs.nc"),
                          obs::make_table(at::full({50}, time, at::kLong), row(40), row(255),
                                          row(280).to(at::kFloat), obs::variable_number("t2m")));
  const auto good = content("obs.nc");
  refused_observations("half.nc", good.substr(0, good.size() / 2));
  refused_observations("head.nc", good.substr(0, 60));
  refused_observations("lie.nc", lying_netcdf(0x3fffffff));
  auto changed = good;
  for (std::size_t i = changed.size() / 3; i < changed.size() / 2; ++i) changed[i] ^= 0x5a;
  refused_observations("changed.nc", changed);
}

TEST_F(BadInputCli, Fields) {
  const auto good = content("air.nc");
  refused_fields("air_half.nc", good.substr(0, good.size() / 2));
  refused_fields("air_none.nc", "");
  refused_fields("air_lie.nc", lying_netcdf(0x3fffffff));
}

TEST_F(BadInputCli, FieldsWithMissingValues) {
  auto fields = state::read_fields(runs().file("air.nc"));
  const auto refused = [&](const char* time, std::initializer_list<const char*> commands) {
    const auto whole = fields.data.clone();
    const auto t = state::time_indices(fields.times, {parse_time(time)}, "test")[0];
    fields.data[t][0].slice(0, 3, 5).fill_(std::nan(""));
    state::write_fields(runs().file("gaps.nc"), fields);
    fields.data = whole;
    auto system = content("system.yaml");
    system.replace(system.find("air.nc"), 6, "gaps.nc");
    put("gaps.yaml", system);
    for (const char* command : commands) {
      const auto result = runs().run(command, "--set system={}/gaps.yaml");
      EXPECT_EQ(result.code, 4) << command << "\n" << result.output;
      EXPECT_THAT(result.output,
                  HasSubstr("gaps.nc: expected air without missing values, got 2 of them at " +
                            format_time(parse_time(time))))
          << command;
    }
  };
  refused("2013-03-01", {"analyze", "train", "evaluate"});
  refused("2014-01-10", {"evaluate"});
}

TEST_F(BadInputCli, TooFewFields) {
  auto fields = state::read_fields(runs().file("air.nc"));
  state::write_fields(
      runs().file("few.nc"),
      state::select_times(fields, {fields.times.begin(), fields.times.begin() + 9}));
  auto system = content("system.yaml");
  system.replace(system.find("air.nc"), 6, "few.nc");
  put("few_system.yaml", system);
  expect_refused("few.nc", "--set system={}/few_system.yaml");
}

TEST_F(BadInputCli, TimesThatTheFieldsDoNotHold) {
  auto system = content("system.yaml");
  const std::string old = "{start: 2013-01-01, end: 2014-01-01}";
  system.replace(system.find(old), old.size(), "{start: 1999-01-01, end: 2000-01-01}");
  put("early_system.yaml", system);
  expect_refused("air.nc", "--set system={}/early_system.yaml");
  expect_refused("air.nc", "--set 'bias_correction={start: 2020-01-01, end: 2020-02-01}'");
}

}  // namespace
}  // namespace halcyon
