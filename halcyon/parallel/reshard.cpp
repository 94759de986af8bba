// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reshard.h"

#include <ATen/ATen.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/time_space.h"

namespace halcyon::parallel {
namespace {

at::Tensor resharded(const at::Tensor& x, Way way, const Group& group) {
  const auto layout = std::make_shared<TimeSpace>();
  layout->operation = way == Way::to_space ? "shard_x" : "shard_t";
  layout->group = group;
  const int64_t cut = way == Way::to_space ? 1 : 2;
  size_t size_at = 0, grad_at = 0;
  Agreement agreement(group, layout->operation);
  agreement.prepare([&] {
    HALCYON_CHECK(x.defined() && x.dim() >= 4, layout->operation,
                  "expected x (b, t, X, c) of 4 axes or more, got {}", describe(x));
    agreement.same_but("x", x, cut);
    size_at = agreement.each(x.size(cut));
    grad_at = agreement.each(x.requires_grad());
  });
  agreement.post();
  agreement.finish();
  layout->tag = agreement.tag();
  const auto held = agreement.of_all(size_at);
  const auto chosen = split_sizes(x.size(3 - cut), group);
  layout->time = way == Way::to_space ? held : chosen;
  layout->space = way == Way::to_space ? chosen : held;
  return move(joined_to_backward(x, agreement.any(grad_at)), way, layout);
}

}  // namespace

at::Tensor shard_x(const at::Tensor& x, const Group& group) {
  return resharded(x, Way::to_space, group);
}

at::Tensor shard_t(const at::Tensor& x, const Group& group) {
  return resharded(x, Way::to_time, group);
}

}  // namespace halcyon::parallel
