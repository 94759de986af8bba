// SPDX-License-Identifier: Apache-2.0
#include "halcyon/sphere/regrid.h"

#include "halcyon/base/error.h"

namespace halcyon {
namespace {

struct Method {
  std::string_view name;
  SparseMatrix (*make)(const Grid& from, const Grid& to);
};

constexpr Method kMethods[] = {{"bilinear", bilinear}, {"conservative", conservative}};

}  // namespace

int64_t size_of(const Grid& grid) {
  return std::visit([](const auto& g) { return g.size(); }, grid);
}

SparseMatrix make_regridder(std::string_view method, const Grid& from, const Grid& to) {
  for (const Method& known : kMethods) {
    if (known.name == method) return known.make(from, to);
  }
  throw_error(ErrorKind::configuration, "regrid",
              fmt::format("expected the method {}, got \"{}\"",
                          fmt::join(regridder_names(), " or "), method));
}

std::vector<std::string_view> regridder_names() {
  std::vector<std::string_view> names;
  for (const Method& known : kMethods) names.push_back(known.name);
  return names;
}

}  // namespace halcyon
