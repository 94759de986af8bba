// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/part_lists.h"

#include <bit>
#include <deque>
#include <map>
#include <mutex>

namespace halcyon::neighborhood {
namespace {

// Keys keep their blocks; of who sees them the queries stay.
PixelLists of_keys(const PixelLists& region, int64_t begin, int64_t end) {
  PixelLists lists;
  lists.token = region.token;
  lists.first.push_back(0);
  for (int64_t block = 0; block < region.blocks(); ++block) {
    for (auto i = region.first[static_cast<std::size_t>(block)];
         i < region.first[static_cast<std::size_t>(block + 1)]; ++i) {
      const auto token = region.seen[static_cast<std::size_t>(i)];
      if (token < begin || token >= end) continue;
      const auto bits = region.seen_by[static_cast<std::size_t>(i)];
      lists.seen.push_back(static_cast<int32_t>(token - begin));
      lists.seen_by.push_back(bits);
      lists.pairs += std::popcount(bits);
    }
    lists.first.push_back(static_cast<int64_t>(lists.seen.size()));
  }
  return lists;
}

// Queries stand in new blocks, in the order of the curve; each sees what it saw in its old one.
PixelLists of_queries(const PixelLists& region, int64_t begin, int64_t end) {
  std::vector<int64_t> queries;                     // their places
  std::vector<int32_t> place(region.token.size());  // of each token
  for (std::size_t p = 0; p < region.token.size(); ++p) {
    place[static_cast<std::size_t>(region.token[p])] = static_cast<int32_t>(p);
    if (begin <= region.token[p] && region.token[p] < end)
      queries.push_back(static_cast<int64_t>(p));
  }
  PixelLists lists;
  lists.first.push_back(0);
  for (std::size_t first = 0; first < queries.size(); first += kBlock) {
    const auto last = std::min(first + kBlock, queries.size());
    std::map<int32_t, uint16_t> seen;                        // by place
    std::map<int64_t, std::map<int64_t, int64_t>> lanes_of;  // by old block: old lane -> new
    for (auto q = first; q < last; ++q) {
      lists.token.push_back(
          static_cast<int32_t>(region.token[static_cast<std::size_t>(queries[q])] - begin));
      lanes_of[queries[q] / kBlock][queries[q] % kBlock] = static_cast<int64_t>(q - first);
    }
    for (const auto& [block, lanes] : lanes_of) {
      for (auto i = region.first[static_cast<std::size_t>(block)];
           i < region.first[static_cast<std::size_t>(block + 1)]; ++i) {
        const auto old_bits = region.seen_by[static_cast<std::size_t>(i)];
        uint32_t bits = 0;
        for (const auto& [from, to] : lanes) bits |= (old_bits >> from & 1u) << to;
        if (bits == 0) continue;
        const auto key = region.seen[static_cast<std::size_t>(i)];
        seen[place[static_cast<std::size_t>(key)]] |= static_cast<uint16_t>(bits);
      }
    }
    for (const auto& [at, bits] : seen) {
      lists.seen.push_back(region.token[static_cast<std::size_t>(at)]);
      lists.seen_by.push_back(bits);
      lists.pairs += std::popcount(bits);
    }
    lists.first.push_back(static_cast<int64_t>(lists.seen.size()));
  }
  return lists;
}

}  // namespace

std::shared_ptr<const PartLists> part_lists(const std::shared_ptr<const PixelLists>& region,
                                            int64_t begin, int64_t end) {
  struct Known {
    std::shared_ptr<const PixelLists> region;
    int64_t begin, end;
    std::shared_ptr<const PartLists> lists;
  };
  static std::mutex mutex;
  static std::deque<Known> kept;
  constexpr std::size_t kMost = 16;
  const std::lock_guard lock(mutex);
  for (const auto& known : kept) {
    if (known.region == region && known.begin == begin && known.end == end) return known.lists;
  }
  auto lists = std::make_shared<const PartLists>(
      PartLists{of_queries(*region, begin, end), of_keys(*region, begin, end)});
  kept.push_front({region, begin, end, lists});
  if (kept.size() > kMost) kept.pop_back();
  return lists;
}

}  // namespace halcyon::neighborhood
