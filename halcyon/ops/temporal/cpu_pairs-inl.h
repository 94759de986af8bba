// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.
//
// Short T. The visible pairs (i, j) of several heads stand in one list; as many as a vector has
// lanes are multiplied side by side, and their sums over the channels come out of one transposition
// of the accumulators rather than of one sum across lanes each. A pixel's rows are in the
// first-level cache meanwhile.

namespace halcyon::temporal_detail {
namespace {

// finish(c, sum over i in [from, to) of weight(i) * rows[i]) for each vector c of a row.
template <class T, int Columns, class Weight, class Finish>
inline void sum_columns(int64_t from, int64_t to, const Weight& weight, const T* rows,
                        int64_t stride, int64_t c, const Finish& finish) {
  Vector<T> sum[Columns] = {};
  for (int64_t i = from; i < to; ++i) {
    const T w = weight(i);
#pragma GCC unroll 4
    for (int v = 0; v < Columns; ++v) sum[v] += w * load(rows + i * stride + c + v * kLanes<T>);
  }
#pragma GCC unroll 4
  for (int v = 0; v < Columns; ++v) finish(c + v * kLanes<T>, sum[v]);
}
template <class T, class Weight, class Finish>
inline void sum_rows(int64_t from, int64_t to, const Weight& weight, const T* rows, int64_t stride,
                     int64_t width, const Finish& finish) {
  constexpr int kN = kLanes<T>;
  int64_t c = 0;
  for (; c + 4 * kN <= width; c += 4 * kN)
    sum_columns<T, 4>(from, to, weight, rows, stride, c, finish);
  for (; c < width; c += kN) sum_columns<T, 1>(from, to, weight, rows, stride, c, finish);
}

template <class S, class T>
class Pairs {
 public:
  using In = const Pixel<const S>&;
  using Out = const Pixel<S>&;

  Pairs(const Problem<T>& problem, T* memory)
      : p_(problem), width_(padded<T>(problem.head_dim)), group_(1), pairs_(0) {
    constexpr int64_t kRows = 24 << 10;  // bytes of rows that stay in the first-level cache
    const int64_t head = 3 * p_.frames * width_ * static_cast<int64_t>(sizeof(T));
    while (group_ < p_.heads && (group_ + 1) * head <= kRows) ++group_;
    for (int64_t i = 0; i < p_.frames; ++i) pairs_ += last_seen(p_, i) - first_seen(p_, i);
    Scratch<T> scratch(memory);
    q_ = scratch.take(group_ * size());
    k_ = scratch.take(group_ * size());
    v_ = scratch.take(group_ * size());
    grad_ = scratch.take(group_ * size());
    const int64_t slots = padded<T>(group_ * pairs_);
    weights_ = scratch.take(slots);
    grad_scores_ = scratch.take(slots);
    start_ = scratch.template take<int64_t>(p_.frames);
    query_of_ = scratch.template take<int32_t>(slots);
    key_of_ = scratch.template take<int32_t>(slots);
    used_ = scratch.used();
    if (memory) list_pairs(slots);
  }
  int64_t used() const { return used_; }

  void forward(In q, In k, In v, Out out) {
    const int64_t d = p_.head_dim;
    for (int64_t h = 0; h < p_.heads; h += group_) {
      const int64_t heads = p_.heads - h < group_ ? p_.heads - h : group_;
      load_scores(heads, q.head(h * d), k.head(h * d));
      for (int64_t g = 0; g < heads; ++g) {
        const auto values = rows(v.head((h + g) * d), v_ + g * size());
        S* to = out.data + (h + g) * d;
        for (int64_t i = 0; i < p_.frames; ++i) {
          const T* a = weights_ + g * pairs_ + start_[i];
          sum_rows<T>(
              first_seen(p_, i), last_seen(p_, i), [&](int64_t j) { return a[j]; }, values.data,
              values.stride, width_,
              [&](int64_t c, Vector<T> x) { store_some<T>(to + i * out.row + c, x, d - c); });
        }
      }
    }
  }

  void backward(In q, In k, In v, In grad, Out grad_q, Out grad_k, Out grad_v) {
    const int64_t d = p_.head_dim;
    for (int64_t h = 0; h < p_.heads; h += group_) {
      const int64_t heads = p_.heads - h < group_ ? p_.heads - h : group_;
      load_scores(heads, q.head(h * d), k.head(h * d));
      for (int64_t g = 0; g < heads; ++g) {
        load_rows(p_, v.head((h + g) * d), v_ + g * size(), width_);
        load_rows(p_, grad.head((h + g) * d), grad_ + g * size(), width_);
      }
      dots(heads, grad_, v_, grad_scores_);
      if (!p_.linear) through_softmax(heads);
      for (int64_t g = 0; g < heads; ++g) {
        const int64_t at = (h + g) * d;
        grad_of_queries(g, grad_q.head(at));
        grad_of_keys(g, grad_k.head(at), grad_v.head(at));
      }
    }
  }

 private:
  static constexpr int kN = kLanes<T>;
  struct Rows {
    const T* data;
    int64_t stride;
  };

  int64_t size() const { return p_.frames * width_; }

  // weights_[g * pairs_ + start_[i] + j] is that of (i, j) in the group's head g.
  void list_pairs(int64_t slots) {
    int64_t slot = 0;
    for (int64_t g = 0; g < group_; ++g) {
      for (int64_t i = 0; i < p_.frames; ++i) {
        const int64_t first = first_seen(p_, i);
        if (g == 0) start_[i] = slot - first;
        for (int64_t j = first; j < last_seen(p_, i); ++j, ++slot) {
          query_of_[slot] = static_cast<int32_t>((g * p_.frames + i) * width_);
          key_of_[slot] = static_cast<int32_t>((g * p_.frames + j) * width_);
        }
      }
    }
    for (; slot < slots; ++slot) query_of_[slot] = key_of_[slot] = 0;
  }

  // Where they are, if they can be used there. Frames are often a multiple of a cache's sets apart:
  // more of them than it has ways would push one another out.
  Rows rows(In from, T* to) const {
    if constexpr (sizeof(S) == sizeof(T)) {
      constexpr int64_t kWays = 8;
      if (p_.head_dim == width_ && p_.frames <= kWays) return {from.data, from.row};
    }
    load_rows(p_, from, to, width_);
    return {to, width_};
  }

  // result[slot] = a[its query] . b[its key]
  void dots(int64_t heads, const T* a, const T* b, T* result) const {
    for (int64_t s = 0; s < heads * pairs_; s += kN) {
      Vector<T> sum[kN] = {};
      for (int64_t c = 0; c < width_; c += kN) {
#pragma GCC unroll 16
        for (int l = 0; l < kN; ++l)
          sum[l] += load(a + query_of_[s + l] + c) * load(b + key_of_[s + l] + c);
      }
      store(result + s, sums_of_rows<T>(sum));
    }
  }

  void load_scores(int64_t heads, In q, In k) {
    for (int64_t g = 0; g < heads; ++g) {
      load_turned(p_, q.head(g * p_.head_dim), p_.scale, q_ + g * size(), width_);
      load_turned(p_, k.head(g * p_.head_dim), T(1), k_ + g * size(), width_);
    }
    dots(heads, q_, k_, weights_);
    if (!p_.linear) softmax(heads);
  }

  void softmax(int64_t heads) {
    each_row(heads, [](T* a, T*, int64_t count) {
      T largest = a[0];
      for (int64_t j = 1; j < count; ++j) largest = a[j] > largest ? a[j] : largest;
      for (int64_t j = 0; j < count; ++j) a[j] -= largest;
    });
    for (int64_t s = 0; s < heads * pairs_; s += kN)
      store(weights_ + s, exponential(load(weights_ + s)));
    each_row(heads, [](T* a, T*, int64_t count) {
      T total = 0;
      for (int64_t j = 0; j < count; ++j) total += a[j];
      const T inverse = T(1) / total;
      for (int64_t j = 0; j < count; ++j) a[j] *= inverse;
    });
  }
  void through_softmax(int64_t heads) {
    each_row(heads, [](T* a, T* s, int64_t count) {
      T mean = 0;
      for (int64_t j = 0; j < count; ++j) mean += a[j] * s[j];
      for (int64_t j = 0; j < count; ++j) s[j] = a[j] * (s[j] - mean);
    });
  }
  template <class F>
  void each_row(int64_t heads, const F& f) {
    int64_t slot = 0;
    for (int64_t g = 0; g < heads; ++g) {
      for (int64_t i = 0; i < p_.frames; ++i) {
        const int64_t count = last_seen(p_, i) - first_seen(p_, i);
        f(weights_ + slot, grad_scores_ + slot, count);
        slot += count;
      }
    }
  }

  void grad_of_queries(int64_t g, Out to) const {
    for (int64_t i = 0; i < p_.frames; ++i) {
      const T* s = grad_scores_ + g * pairs_ + start_[i];
      sum_rows<T>(
          first_seen(p_, i), last_seen(p_, i), [&](int64_t j) { return s[j]; }, k_ + g * size(),
          width_, width_,
          [&](int64_t c, Vector<T> x) { store_unturned<T>(p_, x, p_.scale, to, i, c); });
    }
  }
  void grad_of_keys(int64_t g, Out to_k, Out to_v) const {
    for (int64_t j = 0; j < p_.frames; ++j) {
      const int64_t first = first_seeing(p_, j), last = last_seeing(p_, j);
      const T *a = weights_ + g * pairs_ + j, *s = grad_scores_ + g * pairs_ + j;
      sum_rows<T>(
          first, last, [&](int64_t i) { return s[start_[i]]; }, q_ + g * size(), width_, width_,
          [&](int64_t c, Vector<T> x) { store_unturned<T>(p_, x, T(1), to_k, j, c); });
      sum_rows<T>(
          first, last, [&](int64_t i) { return a[start_[i]]; }, grad_ + g * size(), width_, width_,
          [&](int64_t c, Vector<T> x) {
            store_some<T>(to_v.data + j * to_v.row + c, x, p_.head_dim - c);
          });
    }
  }

  const Problem<T>& p_;
  const int64_t width_;
  int64_t group_, pairs_, used_;  // heads side by side; pairs of one head
  T *q_, *k_, *v_, *grad_;        // (group, frames, width)
  T *weights_, *grad_scores_;     // (group, pairs)
  int64_t* start_;                // (frames,)
  int32_t *query_of_, *key_of_;   // (group * pairs,): where a slot's rows start
};

}  // namespace
}  // namespace halcyon::temporal_detail
