// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// softmax(q k^T scale) v of query (B, H, S, d), key (B, G, S, d) and value (B, G, S, e), S (dim -2)
// cut over the ranks; H is a multiple of G, scale d^-0.5 if none. Without causality the keys may be
// cut in another way than the queries, and be another number; with it query i of the whole sees the
// keys 0 to i.
//
// Ring attention (Liu et al. 2023, arXiv:2310.01889): keys and values go round the ranks, one block
// at a time, the next one under way while this one is computed, and the blocks' results are merged
// by their log-sum-exps. The backward goes round again with the gradients of keys and values, added
// up in ring order. half and bfloat16 are computed in float. Derivatives of derivatives
// (create_graph) gather the whole keys and values and write the scores out.
at::Tensor scaled_dot_product_attention(const at::Tensor& query, const at::Tensor& key,
                                        const at::Tensor& value, bool is_causal = false,
                                        std::optional<double> scale = {}, int64_t dim = -2,
                                        const Group& group = {});

}  // namespace halcyon::parallel
