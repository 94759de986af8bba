// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "halcyon/parallel/group.h"
#include "halcyon/parallel/shared_queues.h"

namespace halcyon::parallel {

// The queues through which the ranks of a gloo group talk that are all on one machine; null for
// other groups, before meet(), and where HALCYON_SHARED_MEMORY=0 or the system refuses them. They
// live as long as the process group.
SharedQueues* queues_of(const Group& group);

// What a group's ranks do together at their first operation: finds out whether they share memory.
// Nothing at later calls.
void meet(const Group& group, const std::string& operation);

}  // namespace halcyon::parallel
