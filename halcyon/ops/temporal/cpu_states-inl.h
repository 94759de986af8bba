// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.

namespace halcyon::temporal_detail {
namespace {

// Sums over a sliding range of blocks of the d x d products L^T R of their rows, the state of
// linear attention. Subtracting what leaves the range would let errors of the large past stay for
// ever; instead the range is held in two parts, as a queue in two stacks: sums from each block to
// the end of the older part, and one sum of the younger. When the older part is used up, the range
// at that time becomes the older part. A range that never leaves its first block has the younger
// part only.
template <class T>
class SlidingState {
 public:
  // longest: blocks in a range that has left the first one.
  SlidingState(int64_t head_dim, int64_t longest, Scratch<T>& scratch)
      : head_dim_(head_dim), width_(padded<T>(head_dim)) {
    older_ = scratch.take(longest * size());
    younger_ = scratch.take(size());
    sum_ = scratch.take(size());
  }

  void reset() { middle_ = end_ = 0; }

  // The sum over [first, last); both ends never fall from call to call. add(b, to, more) adds block
  // b's product to `to`, or with more == false sets it.
  template <class Add>
  const T* over(int64_t first, int64_t last, const Add& add) {
    if (first > 0 && first >= middle_) {
      for (int64_t b = last - 1; b >= first; --b) {
        T* to = older_ + (b - first) * size();
        const bool more = b + 1 < last;
        if (more) copy(to + size(), to);
        add(b, to, more);
      }
      start_ = first;
      middle_ = end_ = last;
    }
    for (; end_ < last; ++end_) add(end_, younger_, end_ > middle_);
    if (middle_ == 0) return younger_;
    const T* older = older_ + (first - start_) * size();
    if (end_ == middle_) return older;
    if (first == middle_) return younger_;
    for (int64_t c = 0; c < size(); c += kLanes<T>)
      store(sum_ + c, load(older + c) + load(younger_ + c));
    return sum_;
  }

 private:
  int64_t size() const { return head_dim_ * width_; }
  void copy(const T* from, T* to) const {
    for (int64_t c = 0; c < size(); c += kLanes<T>) store(to + c, load(from + c));
  }

  const int64_t head_dim_, width_;
  T *older_, *younger_, *sum_;
  int64_t start_ = 0, middle_ = 0,
          end_ = 0;  // blocks: older [start, middle), younger [middle, end)
};

}  // namespace
}  // namespace halcyon::temporal_detail
