// SPDX-License-Identifier: Apache-2.0
// shard and gather: between a whole tensor on every rank and its parts.
#include <ATen/ATen.h>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/both_ways.h"
#include "halcyon/parallel/reshard.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

// The four movements; each is another's adjoint. take and copies have the whole the same on every
// rank, sum and spread have one of its own on each.
enum class Kind { take, copies, sum, spread };

Kind adjoint_of(Kind kind) {
  switch (kind) {
    case Kind::take:
      return Kind::copies;
    case Kind::copies:
      return Kind::take;
    case Kind::sum:
      return Kind::spread;
    case Kind::spread:
      return Kind::sum;
  }
  return kind;
}

struct Parts {
  Kind kind = Kind::take;
  std::string operation;
  Group group;
  int64_t tag = 0, dim = 0;
  std::vector<int64_t> starts;  // and the end of the last

  at::Tensor of(const at::Tensor& whole, int64_t rank) const {
    return whole.narrow(dim, starts[rank], starts[rank + 1] - starts[rank]);
  }
  Exchange exchange(bool adjoint) const {
    return {group, adjoint ? operation + " backward" : operation, tag + (adjoint ? kAdjoint : 0)};
  }
};

at::Tensor gathered(const at::Tensor& x, const Parts& parts, bool adjoint) {
  const auto out = at::empty(sizes_with(x, parts.dim, parts.starts.back()), x.options());
  const auto me = parts.group.rank(), size = parts.group.size();
  auto exchange = parts.exchange(adjoint);
  std::vector<std::pair<at::Tensor, at::Tensor>> arriving;  // to be copied
  for (int64_t step = 1; step < size; ++step) {
    const auto peer = (me + size - step) % size;
    auto into = parts.of(out, peer);
    if (!into.is_contiguous()) {
      arriving.emplace_back(into, at::empty(into.sizes(), x.options()));
      into = arriving.back().second;
    }
    exchange.receive(peer, into);
  }
  const auto mine = size > 1 ? x.contiguous() : x;
  for (int64_t step = 1; step < size; ++step) exchange.send((me + step) % size, mine);
  exchange.post();
  parts.of(out, me).copy_(x);
  exchange.wait();
  for (const auto& [target, from] : arriving) target.copy_(from);
  return out;
}

// The sum over the ranks, in their order, of this rank's part of each one's x.
at::Tensor summed(const at::Tensor& x, const Parts& parts, bool adjoint) {
  const auto me = parts.group.rank(), size = parts.group.size();
  auto exchange = parts.exchange(adjoint);
  std::vector<at::Tensor> terms(size);
  terms[me] = parts.of(x, me);
  for (int64_t step = 1; step < size; ++step) {
    const auto peer = (me + size - step) % size;
    terms[peer] = at::empty(terms[me].sizes(), x.options());
    exchange.receive(peer, terms[peer]);
  }
  for (int64_t step = 1; step < size; ++step) {
    const auto peer = (me + step) % size;
    exchange.send(peer, parts.of(x, peer).contiguous());
  }
  exchange.post();
  exchange.wait();
  const bool is_half = at::isReducedFloatingType(x.scalar_type());
  auto sum = at::empty(terms[me].sizes(), x.options().dtype(is_half ? at::kFloat : x.scalar_type()))
                 .copy_(terms[0]);
  for (int64_t r = 1; r < size; ++r) sum.add_(terms[r]);
  return sum.to(x.scalar_type());
}

at::Tensor by_kind(const at::Tensor& x, const Parts& parts, bool adjoint) {
  switch (adjoint ? adjoint_of(parts.kind) : parts.kind) {
    case Kind::take:
      return parts.of(x, parts.group.rank()).clone(at::MemoryFormat::Contiguous);
    case Kind::sum:
      return summed(x, parts, adjoint);
    default:
      return gathered(x, parts, adjoint);
  }
}

using MoveParts = BothWays<Parts, &by_kind>;

at::Tensor moved(const at::Tensor& x, int64_t dim, const Group& group, const std::string& operation,
                 Kind kind) {
  const auto parts = std::make_shared<Parts>();
  parts->kind = kind;
  parts->operation = operation;
  parts->group = group;
  const bool is_whole = kind == Kind::take;
  size_t size_at = 0, grad_at = 0;
  Agreement agreement(group, operation);
  agreement.prepare([&] {
    parts->dim = axis_of(x, dim, "dim", operation);
    agreement.same_but("x", x, is_whole ? -1 : parts->dim);
    agreement.same("dim", parts->dim);
    agreement.same("sum_grad", static_cast<int64_t>(kind == Kind::spread));
    size_at = agreement.each(x.size(parts->dim));
    grad_at = agreement.each(x.requires_grad());
  });
  agreement.post();
  agreement.finish();
  parts->tag = agreement.tag();
  parts->starts =
      starts_of(is_whole ? split_sizes(x.size(parts->dim), group) : agreement.of_all(size_at));
  return MoveParts::apply(joined_to_backward(x, agreement.any(grad_at)), parts, false);
}

}  // namespace

at::Tensor shard(const at::Tensor& x, int64_t dim, const Group& group) {
  return moved(x, dim, group, "shard", Kind::take);
}

at::Tensor gather(const at::Tensor& x, int64_t dim, const Group& group, bool sum_grad) {
  return moved(x, dim, group, "gather", sum_grad ? Kind::spread : Kind::copies);
}

}  // namespace halcyon::parallel
