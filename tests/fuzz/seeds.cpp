// SPDX-License-Identifier: Apache-2.0
// fuzz_seeds FOLDER: writes small good files for each target into FOLDER/<target>/.
#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "halcyon/model/checkpoint/file.h"
#include "tests/model/checkpoint_files.h"

int main(int argc, char** argv) {
  using namespace halcyon;
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  for (const char* target : {"pickle", "mdlus", "safetensors", "observations"})
    std::filesystem::create_directories(folder / target);

  const auto pickle =
      test::pickled::state_dict({{"a", test::pickled::tensor("0", 12, {3, 4}, {4, 1})},
                                 {"b", test::pickled::tensor("1", 4, {2}, {1}, 1, "HalfStorage")}});
  write_text(folder / "pickle/state_dict", pickle);

  const test::Files files = {
      {"model.pt",
       test::torch_archive_of(pickle, {{"0", std::string(48, 'w')}, {"1", std::string(8, 'v')}})},
      {"args.json",
       R"({"__name__":"VideoHealDA","__module__":"physicsnemo.x","__args__":{"num_layers":1}})"},
      {"metadata.json", R"({"mdlus_file_version":"0.1.0"})"}};
  std::vector<test::ZipEntry> stored, deflated;
  for (const auto& [name, data] : files) {
    stored.push_back({name, data, false, true});
    deflated.push_back({name, data, true});
  }
  write_text(folder / "mdlus/zip64", test::zip_of(stored, true));
  write_text(folder / "mdlus/deflated", test::zip_of(deflated));
  write_text(folder / "mdlus/ustar", test::tar_of(files));
  write_text(folder / "mdlus/pax", test::tar_of(files, test::TarNames::pax));
  write_text(folder / "mdlus/gnu.gz", test::gzip_of(test::tar_of(files, test::TarNames::gnu)));

  TensorFile content{{{"a", at::ones({3, 4})}, {"b", at::zeros({2}, at::kHalf)}}, {}};
  checkpoint::write_own_metadata(R"({"num_layers":1})", content.metadata);
  write_safetensors(folder / "safetensors/own.safetensors", content);
  write_text(folder / "observations/cities.csv",
             "datetime,New_York,Boston\n2013-01-01 00:00:00,272.03,\"269.01\"\n");
  write_text(folder / "observations/empty.nc", std::string("CDF\x01", 4) + std::string(28, '\0'));
}
