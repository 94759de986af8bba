// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/ops/neighborhood/neighborhood.h"

namespace halcyon {

// Scores of every query with its window: query and key (B, H, *, d) with rank axes -> (B, H, *, W),
// after them (.., W + N) the scores with additional keys (B, H, N, d). Not scaled; rpb of options
// is added. Slots are row-major over the axes; of a causal axis the unused ones come last and hold
// -infinity, as those that a causal stride leaves out do. Nested tensors: every operand
// nested, each component (B, H, *, d) a problem of its own, forward only.
at::Tensor na_qk(int rank, const at::Tensor& query, const at::Tensor& key,
                 const NeighborhoodOptions& options);

// Weighted sums: attn (B, H, *, W + N), value (B, H, *, e) -> (B, H, *, e). Unused slots are not
// read. attn is cast to the dtype of value.
at::Tensor na_av(int rank, const at::Tensor& attn, const at::Tensor& value,
                 const NeighborhoodOptions& options);

}  // namespace halcyon
