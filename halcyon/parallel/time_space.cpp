// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/time_space.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/base/large_pages.h"
#include "halcyon/parallel/exchange.h"

namespace halcyon::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Layout = std::shared_ptr<const TimeSpace>;

// Tags of the way back.
constexpr int64_t kAdjoint = 0x30000000;

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

struct Move : torch::autograd::Function<Move> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, bool to_space,
                            const Layout& layout, bool adjoint) {
    ctx->saved_data["to_space"] = to_space;
    ctx->saved_data["adjoint"] = adjoint;
    layout_of(*ctx) = layout;
    const auto way = to_space ? Way::to_space : Way::to_time;
    const auto out = result_like(x, way, *layout);
    exchange_into(out, x, way, *layout, adjoint);
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const bool to_space = ctx->saved_data["to_space"].toBool();
    const bool adjoint = ctx->saved_data["adjoint"].toBool();
    return {apply(grads[0], !to_space, layout_of(*ctx), !adjoint), {}, {}, {}};
  }

 private:
  struct Kept : torch::CustomClassHolder {
    Layout layout;
  };
  static Layout& layout_of(AutogradContext& ctx) {
    auto& slot = ctx.saved_data["layout"];
    if (slot.isNone()) slot = c10::IValue::make_capsule(c10::make_intrusive<Kept>());
    return static_cast<Kept*>(slot.toCapsule().get())->layout;
  }
};

}  // namespace

at::Tensor move(const at::Tensor& x, Way way, const Layout& layout) {
  return Move::apply(x, way == Way::to_space, layout, false);
}

void move_into(const at::Tensor& out, const at::Tensor& x, Way way, const TimeSpace& layout) {
  HALCYON_ASSERT(out.is_contiguous());
  const at::NoGradGuard no_grad;
  exchange_into(out, x, way, layout, false);
}

}  // namespace halcyon::parallel
