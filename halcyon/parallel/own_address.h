// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace c10d {
class Store;
}

namespace halcyon::parallel {

struct Launch;

// The address under which the others of a run reach this rank: the loopback where all ranks share
// one network stack, whatever the machine calls itself; else that of the way to rank 0, or, beside
// rank 0, of the way to another. Every rank calls it with the same store; it ends when all have.
// Empty where there is no address but the loopback.
std::string own_address(c10d::Store& store, const Launch& launch);

}  // namespace halcyon::parallel
