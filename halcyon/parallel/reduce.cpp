// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reduce.h"
#include "halcyon/ops/kept.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kOneRoundBytes = 16 << 10;

// into, which is part `me`, becomes the sum of the parts in their order. The parts are overwritten.
void add_in_order(std::vector<at::Tensor>& parts, int64_t me, const at::Tensor& into,
                  double divisor) {
  parts[me] = into;
  auto sum = parts[0];
  if (at::isReducedFloatingType(sum.scalar_type())) sum = sum.to(at::kFloat);
  for (size_t r = 1; r < parts.size(); ++r) sum.add_(parts[r]);
  if (divisor != 1) sum.div_(divisor);
  if (!sum.is_same(into)) into.copy_(sum);
}

void sum_in_one_round(const at::Tensor& x, const Group& group, const std::string& operation,
                      int64_t tag, double divisor) {
  const auto me = group.rank();
  Exchange exchange(group, operation, tag);
  std::vector<at::Tensor> parts(group.size());
  for (int64_t r = 0; r < group.size(); ++r) {
    if (r == me) continue;
    parts[r] = at::empty_like(x);
    exchange.receive(r, parts[r]);
    exchange.send(r, x);
  }
  exchange.post();
  exchange.wait();
  add_in_order(parts, me, x, divisor);
}

// Each rank sums its chunk of all, then all gather the chunks.
void sum_by_chunks(const at::Tensor& x, const Group& group, const std::string& operation,
                   int64_t tag, double divisor) {
  const auto me = group.rank();
  const auto chunks = x.view(-1).split_with_sizes(split_sizes(x.numel(), group));
  std::vector<at::Tensor> parts(group.size());
  {
    Exchange exchange(group, operation, tag);
    for (int64_t r = 0; r < group.size(); ++r) {
      if (r == me) continue;
      parts[r] = at::empty_like(chunks[me]);
      exchange.receive(r, parts[r]);
      exchange.send(r, chunks[r]);
    }
    exchange.post();
    exchange.wait();
  }
  add_in_order(parts, me, chunks[me], divisor);
  Exchange exchange(group, operation, tag);
  for (int64_t r = 0; r < group.size(); ++r) {
    if (r == me) continue;
    exchange.receive(r, chunks[r]);
    exchange.send(r, chunks[me]);
  }
  exchange.post();
  exchange.wait();
}

struct Reduction {
  Group group;
  std::string operation;
  int64_t tag;
};

struct SumOverRanks : torch::autograd::Function<SumOverRanks> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            std::shared_ptr<const Reduction> reduction) {
    auto out = x.clone(at::MemoryFormat::Contiguous);
    sum_in_place(out, reduction->group, reduction->operation, reduction->tag);
    Kept<Reduction>::keep(*ctx, std::move(reduction));
    return out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    auto way_back = *Kept<Reduction>::of(*ctx);
    if (way_back.tag < kAdjoint) {
      way_back.tag += kAdjoint;
      way_back.operation += " backward";
    }
    return {sum_over_ranks(grads[0], way_back.group, way_back.operation, way_back.tag), {}};
  }
};

}  // namespace

void sum_in_place(const at::Tensor& x, const Group& group, const std::string& operation,
                  int64_t tag, double divisor) {
  HALCYON_ASSERT(x.is_contiguous());
  const c10::NoGradGuard data_only;
  if (group.size() == 1) {
    if (divisor != 1) x.div_(divisor);
    return;
  }
  if (x.numel() == 0) return;
  const auto backend = group.backend(x.device().type());
  if (backend->getBackendName() != "gloo") {
    run_collective(group, operation, [&] {
      std::vector<at::Tensor> one{x};
      return backend->allreduce(one);
    });
    if (divisor != 1) x.div_(divisor);
  } else if (static_cast<int64_t>(x.nbytes()) <= kOneRoundBytes) {
    sum_in_one_round(x, group, operation, tag, divisor);
  } else {
    sum_by_chunks(x, group, operation, tag, divisor);
  }
}

at::Tensor sum_over_ranks(const at::Tensor& x, const Group& group, const std::string& operation,
                          int64_t tag) {
  if (group.size() == 1) return x;
  return SumOverRanks::apply(x,
                             std::make_shared<const Reduction>(Reduction{group, operation, tag}));
}

}  // namespace halcyon::parallel
