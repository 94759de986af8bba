// SPDX-License-Identifier: Apache-2.0
#include "apps/halcyon/ranks.h"

#include "halcyon/base/log.h"

namespace halcyon::cli {

parallel::World start_ranks() {
  auto world = parallel::init();
  const auto& group = world.group();
  if (group.rank() > 0) {
    log::set_level("error");
  } else if (group.size() > 1) {
    log::info("{} ranks, started by {}", group.size(), world.launch().launcher);
  }
  return world;
}

}  // namespace halcyon::cli
