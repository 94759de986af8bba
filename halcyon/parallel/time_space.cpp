// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/time_space.h"

#include <ATen/ATen.h>

#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/base/large_pages.h"
#include "halcyon/parallel/both_ways.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

using Layout = std::shared_ptr<const TimeSpace>;

// A frame of a block is contiguous on both sides, a block on one at most: above this size frames go
// as messages of their own, below it the block is packed into one.
constexpr int64_t kFrameBytes = 256 << 10;

constexpr int64_t kTime = 1, kSpace = 2;

// The parts of x along an axis.
std::vector<at::Tensor> cut(const at::Tensor& x, int64_t axis, const std::vector<int64_t>& sizes) {
  std::vector<at::Tensor> parts;
  int64_t start = 0;
  for (const auto size : sizes) {
    parts.push_back(x.narrow(axis, start, size));
    start += size;
  }
  return parts;
}

// What goes between two ranks, message by message: both ends know the sizes of the block.
std::vector<at::Tensor> messages_of(const at::Tensor& block) {
  const int64_t frames = block.size(0) * block.size(kTime);
  if (frames <= 1 || block.numel() * block.element_size() < frames * kFrameBytes) return {block};
  std::vector<at::Tensor> messages;
  for (int64_t b = 0; b < block.size(0); ++b) {
    for (int64_t t = 0; t < block.size(kTime); ++t) messages.push_back(block[b][t]);
  }
  return messages;
}

at::Tensor result_like(const at::Tensor& x, Way way, const TimeSpace& layout) {
  const auto me = layout.group.rank();
  auto sizes = x.sizes().vec();
  const auto whole = [](const std::vector<int64_t>& parts) {
    return std::accumulate(parts.begin(), parts.end(), int64_t{0});
  };
  sizes[kTime] = way == Way::to_space ? whole(layout.time) : layout.time[me];
  sizes[kSpace] = way == Way::to_space ? layout.space[me] : whole(layout.space);
  auto out = at::empty(sizes, x.options());
  return x.is_cpu() ? on_large_pages(out) : out;
}

void exchange_into(const at::Tensor& out, const at::Tensor& x, Way way, const TimeSpace& layout,
                   bool adjoint) {
  const bool spread = way == Way::to_space;
  const auto sent = spread ? cut(x, kSpace, layout.space) : cut(x, kTime, layout.time);
  const auto received = spread ? cut(out, kTime, layout.time) : cut(out, kSpace, layout.space);
  const auto me = layout.group.rank(), size = layout.group.size();
  Exchange exchange(layout.group, adjoint ? layout.operation + " backward" : layout.operation,
                    layout.tag + (adjoint ? kAdjoint : 0));
  std::vector<std::pair<at::Tensor, at::Tensor>> arriving;  // to be copied
  // each rank begins with another peer, so that no one is asked by all at once
  for (int64_t step = 1; step < size; ++step) {
    const auto peer = (me + size - step) % size;
    for (const auto& message : messages_of(received[peer])) {
      auto into = message;
      if (!into.is_contiguous()) {
        into = at::empty(message.sizes(), out.options());
        arriving.emplace_back(message, into);
      }
      exchange.receive(peer, into);
    }
  }
  for (int64_t step = 1; step < size; ++step) {
    const auto peer = (me + step) % size;
    for (const auto& message : messages_of(sent[peer])) exchange.send(peer, message.contiguous());
  }
  exchange.post();
  received[me].copy_(sent[me]);
  exchange.wait();
  for (const auto& [target, from] : arriving) target.copy_(from);
}

struct Movement {
  Layout layout;
  Way way;
};

at::Tensor moved(const at::Tensor& x, const Movement& movement, bool adjoint) {
  const auto back = movement.way == Way::to_space ? Way::to_time : Way::to_space;
  const auto way = adjoint ? back : movement.way;
  auto out = result_like(x, way, *movement.layout);
  exchange_into(out, x, way, *movement.layout, adjoint);
  return out;
}

using Move = BothWays<Movement, &moved>;

}  // namespace

at::Tensor move(const at::Tensor& x, Way way, const Layout& layout) {
  return Move::apply(x, std::make_shared<const Movement>(Movement{layout, way}), false);
}

void move_into(const at::Tensor& out, const at::Tensor& x, Way way, const TimeSpace& layout) {
  HALCYON_ASSERT(out.is_contiguous());
  const at::NoGradGuard no_grad;
  exchange_into(out, x, way, layout, false);
}

}  // namespace halcyon::parallel
