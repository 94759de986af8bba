// SPDX-License-Identifier: Apache-2.0
#include "halcyon/base/versions.h"

#include <ATen/Version.h>
#include <netcdf.h>
#include <openssl/crypto.h>
#include <torch/version.h>
#include <zlib.h>

#include <fstream>

#include "halcyon/base/version_number.h"

namespace halcyon {

const char* version() {
  return HALCYON_VERSION;
}

std::vector<std::pair<std::string, std::string>> library_versions() {
  const std::string netcdf = nc_inq_libvers();  // "4.9.0 of May  1 2022 ..."
  return {{"LibTorch", TORCH_VERSION},
          {"NetCDF", netcdf.substr(0, netcdf.find(' '))},
          {"zlib", zlibVersion()},
          {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)}};
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace halcyon
