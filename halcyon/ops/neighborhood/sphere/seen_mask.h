// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

namespace halcyon {

// What a window may be; name is what messages call the operation. The region's numbers are checked
// where they are at hand.
void check_healpix_window(const char* name, const HealpixNeighborhood& window);

// (X, X) bool: query i sees key j, by the tensors' numbers.
at::Tensor healpix_seen(const HealpixNeighborhood& window);

namespace neighborhood {
at::Tensor seen_mask(const PixelLists& lists);
}

}  // namespace halcyon
