// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/parallel/launch.h"

namespace halcyon::cli {

// The processes that torchrun, mpirun or srun started with this one, or this one alone. What each
// would say the same, rank 0 says: the others log errors only.
parallel::World start_ranks();

}  // namespace halcyon::cli
