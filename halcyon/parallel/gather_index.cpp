// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/gather_index.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/axes.h"
#include "halcyon/parallel/index_transfer.h"
#include "halcyon/parallel/row_transfer.h"

namespace halcyon::parallel {
namespace {

constexpr auto kName = "gather_index";

// The numbers that an index holds, each once and ascending, and where in them each entry of the
// index is; -1, which is not among them, is behind the last.
struct WantedEntries {
  at::Tensor numbers, places;
  bool has_missing = false;
  int64_t least = 0, most = -1;
};

WantedEntries wanted_of(const at::Tensor& index) {
  WantedEntries wanted;
  auto [numbers, places, counts] = at::_unique2(index.cpu().flatten(), true, true);
  if (numbers.numel() > 0) {
    wanted.least = numbers[0].item<int64_t>();
    wanted.most = numbers[-1].item<int64_t>();
  }
  wanted.has_missing = wanted.least == -1;
  if (wanted.has_missing) {
    numbers = numbers.narrow(0, 1, numbers.numel() - 1);
    places = (places - 1).remainder(numbers.numel() + 1);
  }
  wanted.numbers = numbers;
  wanted.places = places.flatten();
  return wanted;
}

// What every rank wants of this one's: first how many entries, then which.
std::vector<at::Tensor> asked_of(const at::Tensor& numbers, const std::vector<int64_t>& starts,
                                 const Group& group, int64_t tag, c10::Device device) {
  const auto ranks = group.size(), me = group.rank();
  if (group.has_backend(c10::kCPU)) device = at::kCPU;
  const auto cuts = at::searchsorted(numbers, at::tensor(starts, at::kLong));
  const auto counts = cuts.diff().to(device), theirs = at::zeros({ranks}, counts.options());
  Exchange sizes(group, kName, tag);
  for (int64_t r = 0; r < ranks; ++r) {
    if (r != me) sizes.receive(r, theirs.narrow(0, r, 1));
  }
  for (int64_t r = 0; r < ranks; ++r) {
    if (r != me) sizes.send(r, counts.narrow(0, r, 1));
  }
  sizes.post();
  sizes.wait();
  const auto asked_sizes = theirs.cpu();
  std::vector<at::Tensor> asked;
  Exchange lists(group, kName, tag);
  for (int64_t r = 0; r < ranks; ++r) {
    asked.push_back(at::empty({asked_sizes[r].item<int64_t>()}, counts.options()));
    if (r != me) lists.receive(r, asked.back());
  }
  const auto parts = numbers.to(device);
  for (int64_t r = 0; r < ranks; ++r) {
    const auto first = cuts[r].item<int64_t>();
    if (r != me) lists.send(r, parts.narrow(0, first, cuts[r + 1].item<int64_t>() - first));
  }
  lists.post();
  lists.wait();
  for (auto& list : asked) list = list.cpu();
  return asked;
}

// The entries of table at these places, one further meaning zeros. On a CPU the backward of
// index_select adds in order; on other devices that of index does.
at::Tensor chosen(const at::Tensor& table, const at::Tensor& places, int64_t dim,
                  bool has_missing) {
  auto from = table;
  if (has_missing) {
    auto sizes = table.sizes().vec();
    sizes[dim] = 1;
    from = at::cat({table, at::zeros(sizes, table.options())}, dim);
  }
  if (from.is_cpu()) return from.index_select(dim, places);
  c10::List<std::optional<at::Tensor>> indices;
  for (int64_t i = 0; i < dim; ++i) indices.push_back(std::nullopt);
  indices.push_back(places.to(from.device()));
  return at::index(from, indices);
}

}  // namespace

at::Tensor gather_index(const at::Tensor& x, const at::Tensor& index, int64_t dim_given,
                        const Group& group) {
  Agreement agreement(group, kName);
  int64_t dim = 0;
  size_t rows_at = 0, least_at = 0, most_at = 0, grad_at = 0;
  WantedEntries wanted;
  agreement.prepare([&] {
    dim = axis_of(x, dim_given, "dim", kName);
    HALCYON_CHECK(index.defined() && index.scalar_type() == at::kLong, kName,
                  "expected an index of int64, got {}", describe(index));
    wanted = wanted_of(index);
    agreement.same_but("x", x, dim);
    agreement.same("dim", dim);
    rows_at = agreement.each(x.size(dim));
    least_at = agreement.each(wanted.least);
    most_at = agreement.each(wanted.most);
    grad_at = agreement.each(x.requires_grad());
  });
  agreement.post();
  agreement.finish();
  const auto starts = starts_of(agreement.of_all(rows_at));
  for (int64_t r = 0; r < group.size(); ++r) {
    const auto least = agreement.of(r, least_at), most = agreement.of(r, most_at);
    HALCYON_CHECK(least >= -1 && most < starts.back(), kName,
                  "expected an index in 0..{}, or -1 for zeros, got {} on rank {}",
                  starts.back() - 1, least < -1 ? least : most, r);
  }
  const auto tag = agreement.tag();
  const auto asked = asked_of(wanted.numbers, starts, group, tag, x.device());
  const auto table = move_indexed(
      joined_to_backward(x, agreement.any(grad_at)),
      index_transfer(kName, group, tag, dim, starts, wanted.numbers, asked, x.device()));
  auto sizes = x.sizes().vec();
  sizes.erase(sizes.begin() + dim);
  sizes.insert(sizes.begin() + dim, index.sizes().begin(), index.sizes().end());
  return chosen(table, wanted.places, dim, wanted.has_missing).reshape(sizes);
}

}  // namespace halcyon::parallel
