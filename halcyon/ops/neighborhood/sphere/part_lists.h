// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

namespace halcyon::neighborhood {

// Lists where queries are only some of the pixels.
struct PartLists {
  PixelLists of_queries;  // tokens are queries, what they see are keys
  PixelLists of_keys;     // tokens are keys, what sees them are queries
};

// Of lists of a region those where the region's tokens [begin, end) are the queries, counted from
// begin, and all of its pixels are keys. Made once for each and kept for the process (the last 16).
std::shared_ptr<const PartLists> part_lists(const std::shared_ptr<const PixelLists>& region,
                                            int64_t begin, int64_t end);

}  // namespace halcyon::neighborhood
