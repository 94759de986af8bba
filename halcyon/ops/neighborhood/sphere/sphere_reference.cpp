// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <limits>

#include "halcyon/ops/hidden.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"

namespace halcyon::neighborhood {
at::Tensor seen_mask(const PixelLists& lists) {
  const auto pixels = static_cast<int64_t>(lists.token.size());
  auto seen = at::zeros({pixels, pixels}, at::kBool);
  auto at = seen.accessor<bool, 2>();
  for (int64_t block = 0; block < lists.blocks(); ++block) {
    for (int64_t i = lists.first[static_cast<std::size_t>(block)];
         i < lists.first[static_cast<std::size_t>(block + 1)]; ++i) {
      const auto entry = static_cast<std::size_t>(i);
      for (int l = 0; l < kBlock; ++l) {
        if (lists.seen_by[entry] >> l & 1)
          at[lists.token[static_cast<std::size_t>(block * kBlock + l)]][lists.seen[entry]] = true;
      }
    }
  }
  return seen;
}

Output sphere_reference(const SphereInputs& in) {
  const auto type = accumulate_type(in.query);
  const int64_t shared = in.query.size(2) / in.key.size(2);
  const auto heads_first = [&](const at::Tensor& t) { return t.to(type).transpose(1, 2); };
  const auto q = heads_first(in.query) * in.scale,
             k = heads_first(in.key).repeat_interleave(shared, 1),
             v = heads_first(in.value).repeat_interleave(shared, 1);
  const auto hidden = seen_mask(*in.lists).logical_not().to(q.device());
  const auto scores = seen_scores(q, k, hidden, -std::numeric_limits<double>::infinity());
  const auto out = seen_sums(at::softmax(scores, -1), v, hidden).transpose(1, 2);
  return {out.to(in.query.scalar_type()), at::logsumexp(scores, -1).transpose(1, 2)};
}

}  // namespace halcyon::neighborhood
