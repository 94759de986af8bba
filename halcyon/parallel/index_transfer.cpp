// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/index_transfer.h"

#include <ATen/ATen.h>

#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/both_ways.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/tags.h"

namespace halcyon::parallel {
namespace {

using Transfer = std::shared_ptr<const IndexTransfer>;

at::Tensor forward_of(const at::Tensor& x, const IndexTransfer& t) {
  const auto me = t.group.rank();
  const auto out = at::empty(sizes_with(x, t.dim, t.rows()), x.options());
  Exchange exchange(t.group, t.operation, t.tag);
  std::vector<std::pair<at::Tensor, at::Tensor>> arriving;  // from, to
  at::Tensor own;
  int64_t at = 0;
  for (int64_t r = 0; r < t.group.size(); ++r) {
    const auto place = out.narrow(t.dim, at, t.counts[r]);
    at += t.counts[r];
    if (r == me) {
      own = place;
      continue;
    }
    auto into = place;
    if (!into.is_contiguous()) {
      into = at::empty(into.sizes(), x.options());
      arriving.emplace_back(into, place);
    }
    exchange.receive(r, into);
  }
  for (int64_t r = 0; r < t.group.size(); ++r) {
    if (r != me) exchange.send(r, x.index_select(t.dim, t.asked[r]));
  }
  exchange.post();
  own.copy_(x.index_select(t.dim, t.asked[me]));
  exchange.wait();
  for (const auto& [from, to] : arriving) to.copy_(from);
  return out;
}

at::Tensor adjoint_of(const at::Tensor& grad, const IndexTransfer& t) {
  const auto me = t.group.rank();
  Exchange exchange(t.group, t.operation + " backward", t.tag + kAdjoint);
  std::vector<at::Tensor> parts(t.counts.size());
  for (int64_t r = 0; r < t.group.size(); ++r) {
    if (r == me) continue;
    parts[r] = at::empty(sizes_with(grad, t.dim, t.asked[r].numel()), grad.options());
    exchange.receive(r, parts[r]);
  }
  int64_t at = 0;
  for (int64_t r = 0; r < t.group.size(); ++r) {
    const auto part = grad.narrow(t.dim, at, t.counts[r]);
    at += t.counts[r];
    if (r == me) {
      parts[r] = part;
    } else {
      exchange.send(r, part.contiguous());
    }
  }
  exchange.post();
  auto out = at::zeros(sizes_with(grad, t.dim, t.local_rows), grad.options());
  exchange.wait();
  for (int64_t r = 0; r < t.group.size(); ++r) out.index_add_(t.dim, t.asked[r], parts[r]);
  return out;
}

at::Tensor moved(const at::Tensor& x, const IndexTransfer& t, bool adjoint) {
  return adjoint ? adjoint_of(x, t) : forward_of(x, t);
}

using MoveIndexed = BothWays<IndexTransfer, &moved>;

// Where the ascending numbers reach each of the starts.
std::vector<int64_t> cuts_of(const at::Tensor& numbers, const std::vector<int64_t>& starts) {
  const auto found = at::searchsorted(numbers, at::tensor(starts, at::kLong));
  const auto* const data = found.const_data_ptr<int64_t>();
  return {data, data + starts.size()};
}

}  // namespace

int64_t IndexTransfer::rows() const {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

std::shared_ptr<IndexTransfer> index_transfer(const std::string& operation, const Group& group,
                                              int64_t tag, int64_t dim,
                                              const std::vector<int64_t>& starts,
                                              const at::Tensor& wanted,
                                              const std::vector<at::Tensor>& asked,
                                              c10::Device device) {
  const auto me = group.rank();
  auto transfer = std::make_shared<IndexTransfer>();
  transfer->operation = operation;
  transfer->group = group;
  transfer->tag = tag;
  transfer->dim = dim;
  transfer->local_rows = starts[me + 1] - starts[me];
  const auto cuts = cuts_of(wanted, starts);
  for (int64_t r = 0; r < group.size(); ++r) {
    transfer->counts.push_back(cuts[r + 1] - cuts[r]);
    const auto numbers = r == me ? wanted.narrow(0, cuts[r], cuts[r + 1] - cuts[r]) : asked[r];
    transfer->asked.push_back((numbers - starts[me]).to(device));
  }
  return transfer;
}

std::shared_ptr<IndexTransfer> whole_transfer(const std::string& operation, const Group& group,
                                              int64_t tag, int64_t dim,
                                              const std::vector<int64_t>& starts,
                                              c10::Device device) {
  const auto own = at::arange(starts[group.rank()], starts[group.rank() + 1]);
  return index_transfer(operation, group, tag, dim, starts, at::arange(starts.back()),
                        std::vector<at::Tensor>(static_cast<size_t>(group.size()), own), device);
}

at::Tensor move_indexed(const at::Tensor& x, const Transfer& transfer) {
  return MoveIndexed::apply(x, transfer, false);
}

at::Tensor move_indexed_back(const at::Tensor& result, const Transfer& transfer) {
  return MoveIndexed::apply(result, transfer, true);
}

}  // namespace halcyon::parallel
