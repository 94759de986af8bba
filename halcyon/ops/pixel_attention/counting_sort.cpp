// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/counting_sort.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <numeric>
#include <utility>
#include <vector>

#include "halcyon/base/large_pages.h"

namespace halcyon::pixel_attention_detail {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // rows whose ids and places stay in the second cache
constexpr int kBucketBits = 9;                // streams that the first cache can hold open
constexpr int kMostLowBits = 16;              // beside a row's place in its block in 32 bits
constexpr int64_t kAhead = 2;                 // segments that are fetched before they are read

// A radix sort in two digits of the pixel. Blocks of rows are sorted by the high digit (the bucket)
// on their own, then each bucket collects its segment of every block and sorts it by the low digit:
// nothing is read or written at random beyond the caches.
template <class Index>
class RadixSort {
 public:
  RadixSort(const Index* index, int64_t rows, int64_t total)
      : index_(index),
        rows_(rows),
        total_(total),
        low_bits_(std::clamp(
            static_cast<int>(std::bit_width(static_cast<uint64_t>(total - 1))) - kBucketBits, 0,
            kMostLowBits)),
        width_(int64_t{1} << low_bits_),
        buckets_(((total - 1) >> low_bits_) + 1),
        blocks_((rows + kBlock - 1) / kBlock),
        begin_(static_cast<size_t>(blocks_ * (buckets_ + 1))),
        start_(static_cast<size_t>(buckets_ + 1)),
        entries_(scratch_on_large_pages(rows)) {}

  // False when an id is out of range.
  bool split() {
    std::atomic<bool> good{true};
    at::parallel_for(0, blocks_, 1, [&](int64_t first, int64_t last) {
      std::vector<uint32_t> scratch(static_cast<size_t>(2 * buckets_));
      for (int64_t block = first; block < last; ++block) {
        if (!count_block(block, scratch)) return good.store(false, std::memory_order_relaxed);
        split_block(block, scratch.data());
      }
    });
    for (int64_t block = 0; block < blocks_; ++block) {
      for (int64_t k = 0; k < buckets_; ++k)
        start_[k + 1] += segment(block, k)[1] - segment(block, k)[0];
    }
    std::partial_sum(start_.begin(), start_.end(), start_.begin());
    return good.load();
  }

  void join(int32_t* order, int64_t* counts) const {
    // shares of like work; what they are changes no result
    const int64_t shares = at::get_num_threads();
    at::parallel_for(0, shares, 1, [&](int64_t first, int64_t last) {
      std::vector<uint32_t> place(static_cast<size_t>(width_));
      const int64_t end = bucket_at(last, shares);
      for (int64_t k = bucket_at(first, shares); k < end; ++k) join_bucket(k, place, order, counts);
    });
  }

 private:
  // begin_: where the segments of a block begin, and where the last one ends.
  const uint32_t* segment(int64_t block, int64_t bucket) const {
    return begin_.data() + block * (buckets_ + 1) + bucket;
  }
  const uint32_t* entries(int64_t block) const {
    return reinterpret_cast<const uint32_t*>(entries_.const_data_ptr<int32_t>()) + block * kBlock;
  }

  // Two counters a bucket: neighbours often share one, and an increment waits for the one before.
  bool count_block(int64_t block, std::vector<uint32_t>& scratch) {
    std::fill(scratch.begin(), scratch.end(), 0);
    uint32_t *even = scratch.data(), *odd = even + buckets_;
    const auto total = static_cast<uint64_t>(total_);
    const auto add = [total, bits = low_bits_](uint32_t* counter, int64_t pixel) {
      if (static_cast<uint64_t>(pixel) >= total) [[unlikely]]
        return false;
      ++counter[pixel >> bits];
      return true;
    };
    const int64_t end = std::min(rows_, (block + 1) * kBlock);
    int64_t row = block * kBlock;
    for (; row + 1 < end; row += 2) {
      if (!add(even, index_[row]) || !add(odd, index_[row + 1])) return false;
    }
    return row == end || add(even, index_[row]);
  }

  // An entry: the row's place in the block above the low digit of its pixel.
  void split_block(int64_t block, uint32_t* scratch) {
    uint32_t* begin = begin_.data() + block * (buckets_ + 1);
    uint32_t at = 0;
    for (int64_t k = 0; k < buckets_; ++k) {
      const uint32_t count = scratch[k] + scratch[buckets_ + k];
      begin[k] = scratch[k] = at;
      at += count;
    }
    begin[buckets_] = at;
    auto* to = reinterpret_cast<uint32_t*>(entries_.mutable_data_ptr<int32_t>()) + block * kBlock;
    const Index* from = index_ + block * kBlock;
    const auto mask = static_cast<uint32_t>(width_ - 1);
    for (uint32_t i = 0, bits = low_bits_; i < at; ++i) {
      const auto pixel = static_cast<uint32_t>(from[i]);
      to[scratch[pixel >> bits]++] = i << kMostLowBits | (pixel & mask);
    }
  }

  // The first bucket of a share; a bucket's work is its rows and its pixels.
  int64_t bucket_at(int64_t share, int64_t shares) const {
    const int64_t work = rows_ + buckets_ * width_;
    const auto goal = static_cast<int64_t>(static_cast<double>(work) * static_cast<double>(share) /
                                           static_cast<double>(shares));
    int64_t low = 0, high = buckets_;
    if (share == shares) return high;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      start_[middle] + middle* width_ < goal ? low = middle + 1 : high = middle;
    }
    return low;
  }

  template <class F>
  void each_segment(int64_t k, const F& f) const {
    for (int64_t block = 0; block < blocks_; ++block) {
      if (block + kAhead < blocks_) {
        const uint32_t* next = segment(block + kAhead, k);
        for (uint32_t i = next[0]; i < next[1]; i += 16)
          __builtin_prefetch(entries(block + kAhead) + i);
      }
      const uint32_t* range = segment(block, k);
      f(block, entries(block) + range[0], entries(block) + range[1]);
    }
  }

  void join_bucket(int64_t k, std::vector<uint32_t>& place, int32_t* order, int64_t* counts) const {
    const int64_t pixels = std::min(width_, total_ - k * width_);
    int64_t* count = counts + k * width_;
    int32_t* to = order + start_[k];
    if (start_[k] == start_[k + 1]) {
      std::fill_n(count, pixels, 0);
      return;
    }
    constexpr uint32_t kMask = (uint32_t{1} << kMostLowBits) - 1;
    std::fill(place.begin(), place.end(), 0);
    each_segment(k, [&](int64_t, const uint32_t* from, const uint32_t* end) {
      for (; from < end; ++from) ++place[*from & kMask];
    });
    uint32_t at = 0;
    for (int64_t p = 0; p < pixels; ++p) {
      count[p] = place[p];
      at += std::exchange(place[p], at);
    }
    each_segment(k, [&](int64_t block, const uint32_t* from, const uint32_t* end) {
      for (; from < end; ++from)
        to[place[*from & kMask]++] = static_cast<int32_t>(block * kBlock + (*from >> kMostLowBits));
    });
  }

  const Index* index_;
  int64_t rows_, total_;
  int low_bits_;
  int64_t width_, buckets_, blocks_;  // width_: pixels of a bucket
  std::vector<uint32_t> begin_;       // (blocks, buckets + 1)
  std::vector<int64_t> start_;        // (buckets + 1,): rows before each bucket
  at::Tensor entries_;                // (rows,)
};

// f(first, last) over parts of the rows.
template <class F>
void each_part(int64_t rows, const F& f) {
  at::parallel_for(0, rows, kBlock, f);
}

template <class Index>
bool ascends(const Index* index, int64_t rows) {
  std::atomic<bool> good{true};
  each_part(rows, [&](int64_t first, int64_t last) {
    for (; first < last && good.load(std::memory_order_relaxed); first += kBlock) {
      const int64_t end = std::min(rows, std::min(last, first + kBlock) + 1);  // and over the edge
      if (!std::is_sorted(index + first, index + end)) good.store(false, std::memory_order_relaxed);
    }
  });
  return good.load();
}

// A run of equal ids belongs to the part in which it begins.
template <class Index>
void order_of_ascending(const Index* index, int64_t rows, int64_t total, int32_t* order,
                        int64_t* counts) {
  std::fill_n(counts, total, 0);
  each_part(rows, [&](int64_t first, int64_t last) {
    std::iota(order + first, order + last, static_cast<int32_t>(first));
    int64_t row = first;
    while (row > 0 && row < last && index[row] == index[row - 1]) ++row;
    while (row < last) {
      const int64_t begin = row;
      while (row < rows && index[row] == index[begin]) ++row;
      counts[index[begin]] = row - begin;
    }
  });
}

}  // namespace

template <class Index>
bool counting_sort(const Index* index, int64_t rows, int64_t total, int32_t* order,
                   int64_t* counts) {
  if (ascends(index, rows)) {
    if (index[0] < 0 || index[rows - 1] >= total) return false;
    order_of_ascending(index, rows, total, order, counts);
    return true;
  }
  RadixSort<Index> sort(index, rows, total);
  if (!sort.split()) return false;
  sort.join(order, counts);
  return true;
}

template bool counting_sort(const int32_t*, int64_t, int64_t, int32_t*, int64_t*);
template bool counting_sort(const int64_t*, int64_t, int64_t, int32_t*, int64_t*);

}  // namespace halcyon::pixel_attention_detail
