// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.
//
// Long T: one head of a pixel as products of blocks of kBlock frames. Scores are kept transposed,
// (key, query) with the queries in the lanes: a softmax then needs no sums across lanes. It is
// computed online, block by block of keys (Milakov & Gimelshein 2018, arXiv:1805.02867); the
// backward computes its maxima and sums again. In the linear case a block of queries sees most
// blocks of keys entirely, and all of those together are one d x d state, sum_j k_j v_j^T
// (Katharopoulos et al. 2020, arXiv:2006.16236): T d^2 multiplications in the place of T^2 d.

namespace halcyon::temporal_detail {
namespace {

template <class S, class T>
class Blocks {
 public:
  using In = const Pixel<const S>&;
  using Out = const Pixel<S>&;

  Blocks(const Problem<T>& problem, T* memory)
      : p_(problem),
        width_(padded<T>(problem.head_dim)),
        blocks_((problem.frames + kBlock - 1) / kBlock),
        scratch_(memory),
        keys_(problem.head_dim, longest(), scratch_),
        queries_(problem.head_dim, longest(), scratch_),
        values_(problem.head_dim, longest(), scratch_) {
    for (T** rows : {&q_, &k_, &v_, &grad_, &grad_k_, &grad_v_})
      *rows = scratch_.take(p_.frames * width_);
    for (T** columns : {&query_columns_, &grad_columns_}) *columns = scratch_.take(width_ * kBlock);
    for (T** scores : {&weights_, &grad_scores_}) *scores = scratch_.take(kBlock * kBlock);
    for (bool** finite : {&finite_q_, &finite_k_, &finite_v_, &finite_grad_})
      *finite = scratch_.template take<bool>(blocks_);
    clean_ = scratch_.take(kBlock * width_);
    sums_ = scratch_.take(kBlock * width_);
    for (T** lanes : {&largest_, &total_, &shrink_, &delta_}) *lanes = scratch_.take(kBlock);
  }
  int64_t used() const { return scratch_.used(); }

  void forward(In q, In k, In v, Out out) {
    load_head(q, k, v);
    for (int64_t i = 0; i < blocks_; ++i) {
      attend(i);
      for (int64_t r = 0; r < count(i); ++r) {
        const T inverse = p_.linear ? T(1) : T(1) / total_[r];
        for (int64_t c = 0; c < width_; c += kN)
          store_some<T>(out.data + (i * kBlock + r) * out.row + c,
                        load(sums_ + r * width_ + c) * inverse, p_.head_dim - c);
      }
    }
  }

  void backward(In q, In k, In v, In grad, Out grad_q, Out grad_k, Out grad_v) {
    load_head(q, k, v);
    load_rows(p_, grad, grad_, width_);
    find_finite(q_, finite_q_);
    find_finite(grad_, finite_grad_);
    for (int64_t c = 0; c < p_.frames * width_; c += kN) {
      store(grad_k_ + c, Vector<T>{});
      store(grad_v_ + c, Vector<T>{});
    }
    for (int64_t i = 0; i < blocks_; ++i) {
      if (!p_.linear) {
        attend(i);
        finish_rows(i);
      }
      backward_of_block(i);
      for (int64_t r = 0; r < count(i); ++r) {
        for (int64_t c = 0; c < width_; c += kN)
          store_unturned<T>(p_, load(sums_ + r * width_ + c), p_.scale, grad_q, i * kBlock + r, c);
      }
    }
    if (p_.form == Form::states) add_states_of_queries();
    for (int64_t t = 0; t < p_.frames; ++t) {
      for (int64_t c = 0; c < width_; c += kN) {
        store_unturned<T>(p_, load(grad_k_ + t * width_ + c), T(1), grad_k, t, c);
        store_some<T>(grad_v.data + t * grad_v.row + c, load(grad_v_ + t * width_ + c),
                      p_.head_dim - c);
      }
    }
  }

 private:
  static constexpr int kN = kLanes<T>;
  static constexpr T kHidden = -1e30f;

  int64_t longest() const {
    if (p_.form != Form::states || p_.window >= p_.frames) return 0;
    const int64_t n = p_.window / kBlock + 1;
    return n < blocks_ ? n : blocks_;
  }
  int64_t count(int64_t block) const {
    const int64_t left = p_.frames - block * kBlock;
    return left < kBlock ? left : kBlock;
  }
  Sight sight_of(int64_t i) const { return sight(p_.frames, p_.causal, p_.window, i); }
  T* block(T* rows, int64_t b) const { return rows + b * kBlock * width_; }
  const T* block(const T* rows, int64_t b) const { return rows + b * kBlock * width_; }

  void load_head(In q, In k, In v) {
    load_turned(p_, q, p_.scale, q_, width_);
    load_turned(p_, k, T(1), k_, width_);
    load_rows(p_, v, v_, width_);
    find_finite(k_, finite_k_);
    find_finite(v_, finite_v_);
    for (auto* state : {&keys_, &queries_, &values_}) state->reset();
  }

  // f(J) for the blocks of keys that i's queries meet one by one.
  template <class F>
  void each_block(int64_t i, const F& f) const {
    const auto s = sight_of(i);
    const bool states = p_.form == Form::states;
    for (int64_t j = s.first; j < s.last; ++j) {
      if (!states || j < s.full_first || j >= s.full_last) f(j);
    }
  }

  // result (key, query) = rows of block j (key, channel) . columns (channel, query), which are i's
  void scores(int64_t i, int64_t j, const T* rows, const T* columns, T* result) const {
    product<T, false>(count(j), padded<T>(count(i)), p_.head_dim, block(rows, j), width_, 1,
                      columns, kBlock, result, kBlock);
  }
  // Which blocks of rows are finite, where it is asked for.
  void find_finite(const T* rows, bool* finite) const {
    for (int64_t b = 0; p_.causal && b < blocks_; ++b)
      finite[b] = are_finite(count(b), width_, block(rows, b), width_);
  }

  // to (queries of block i) += weights (keys of block j, queries) transposed, times block j's rows
  void add_weighted(int64_t i, int64_t j, const T* weights, const T* rows, const bool* finite,
                    T* to) const {
    if (is_whole(i, j) || finite[j]) {
      product<T, true>(count(i), width_, count(j), weights, 1, kBlock, block(rows, j), width_, to,
                       width_);
    } else {
      seen_product<T, true>(count(i), width_, count(j), weights, 1, kBlock, block(rows, j), width_,
                            to, width_, clean_,
                            [&](int64_t query, int64_t key) { return sees(i, j, query, key); });
    }
  }
  // to (keys of block j) += weights times block i's rows
  void add_transposed(int64_t i, int64_t j, const T* weights, const T* rows, const bool* finite,
                      T* to) const {
    if (is_whole(i, j) || finite[i]) {
      product<T, true>(count(j), width_, count(i), weights, kBlock, 1, block(rows, i), width_, to,
                       width_);
    } else {
      seen_product<T, true>(count(j), width_, count(i), weights, kBlock, 1, block(rows, i), width_,
                            to, width_, clean_,
                            [&](int64_t key, int64_t query) { return sees(i, j, query, key); });
    }
  }

  // Whether block i's queries see all of block j, and whether one of them sees a key of it.
  bool is_whole(int64_t i, int64_t j) const {
    const auto s = sight_of(i);
    return !p_.causal || (j >= s.full_first && j < s.full_last);
  }
  bool sees(int64_t i, int64_t j, int64_t query, int64_t key) const {
    const int64_t distance = (i - j) * kBlock + query - key;
    return distance >= 0 && distance < p_.window;
  }

  // Sets what queries of block i may not see of block j to `value`: for each key, those before it
  // and those from its window's end on.
  void hide(int64_t i, int64_t j, T value, T* a) const {
    if (is_whole(i, j)) return;
    Vector<T> lanes;
    for (int l = 0; l < kN; ++l) lanes[l] = static_cast<T>(l);
    for (int64_t key = 0; key < count(j); ++key) {
      const auto from = static_cast<T>((j - i) * kBlock + key);
      const auto to = from + static_cast<T>(p_.window);
      for (int64_t x = 0; x < kBlock; x += kN) {
        T* at = a + key * kBlock + x;
        const auto query = lanes + static_cast<T>(x);
        const auto seen = (query >= from) & (query < to);
        store(at, seen ? load(at) : Vector<T>{} + value);
      }
    }
  }

  // sums_ = the weighted values of block i's queries; with a softmax times total_, yet to divide.
  void attend(int64_t i) {
    const int64_t queries = count(i), lanes = padded<T>(queries);
    transpose<T>(queries, p_.head_dim, block(q_, i), width_, query_columns_, kBlock);
    for (int64_t x = 0; x < kBlock; x += kN) {
      store(largest_ + x, Vector<T>{} + kHidden);
      store(total_ + x, Vector<T>{});
    }
    clear_sums();
    const auto s = sight_of(i);
    if (p_.form == Form::states && s.full_first < s.full_last) {
      const T* state = keys_.over(s.full_first, s.full_last, [&](int64_t j, T* to, bool more) {
        add_product(k_, v_, j, to, more);
      });
      product<T, true>(queries, width_, p_.head_dim, block(q_, i), width_, 1, state, width_, sums_,
                       width_);
    }
    each_block(i, [&](int64_t j) {
      scores(i, j, k_, query_columns_, weights_);
      if (p_.linear) {
        hide(i, j, 0, weights_);
      } else {
        hide(i, j, kHidden, weights_);
        for (int64_t x = 0; x < lanes; x += kN) absorb(count(j), x);
        hide(i, j, 0, weights_);
        shrink_sums(queries);
      }
      add_weighted(i, j, weights_, v_, finite_v_, sums_);
    });
  }

  // Scores to weights under a new maximum, for the queries of lanes x: the online softmax.
  void absorb(int64_t keys, int64_t x) {
    const auto before = load(largest_ + x);
    auto largest = before;
    for (int64_t j = 0; j < keys; ++j)
      largest = larger<T>(largest, load(weights_ + j * kBlock + x));
    const auto shrink = exponential(before - largest);
    auto total = load(total_ + x) * shrink;
    for (int64_t j = 0; j < keys; ++j) {
      T* at = weights_ + j * kBlock + x;
      const auto score = load(at);
      const auto weight = exponential(score - largest);
      store(at, weight);
      total += score > kHidden ? weight : Vector<T>{};
    }
    store(largest_ + x, largest);
    store(shrink_ + x, shrink);
    store(total_ + x, total);
  }

  void clear_sums() {
    for (int64_t c = 0; c < kBlock * width_; c += kN) store(sums_ + c, Vector<T>{});
  }
  void shrink_sums(int64_t queries) {
    for (int64_t r = 0; r < queries; ++r) {
      for (int64_t c = 0; c < width_; c += kN)
        store(sums_ + r * width_ + c, load(sums_ + r * width_ + c) * shrink_[r]);
    }
  }
  // delta_ = grad . out; total_ = 1 / total_
  void finish_rows(int64_t i) {
    for (int64_t r = 0; r < count(i); ++r) {
      total_[r] = T(1) / total_[r];
      Vector<T> sum{};
      for (int64_t c = 0; c < width_; c += kN)
        sum += load(block(grad_, i) + r * width_ + c) * load(sums_ + r * width_ + c);
      delta_[r] = sum_lanes<T>(sum) * total_[r];
    }
    for (int64_t r = count(i); r < kBlock; ++r) total_[r] = delta_[r] = 0;
  }

  // sums_ = the gradient of block i's queries; what they give to grad_k_ and grad_v_ is added
  // there.
  void backward_of_block(int64_t i) {
    const int64_t queries = count(i), lanes = padded<T>(queries);
    if (p_.linear) transpose<T>(queries, p_.head_dim, block(q_, i), width_, query_columns_, kBlock);
    transpose<T>(queries, p_.head_dim, block(grad_, i), width_, grad_columns_, kBlock);
    clear_sums();
    const auto s = sight_of(i);
    if (p_.form == Form::states && s.full_first < s.full_last) {
      const T* state = keys_.over(s.full_first, s.full_last, [&](int64_t j, T* to, bool more) {
        add_product(v_, k_, j, to, more);
      });
      product<T, true>(queries, width_, p_.head_dim, block(grad_, i), width_, 1, state, width_,
                       sums_, width_);
    }
    each_block(i, [&](int64_t j) {
      scores(i, j, k_, query_columns_, weights_);
      scores(i, j, v_, grad_columns_, grad_scores_);
      if (!p_.linear) {
        for (int64_t x = 0; x < lanes; x += kN) through_softmax(count(j), x);
      }
      hide(i, j, 0, weights_);
      hide(i, j, 0, grad_scores_);
      add_weighted(i, j, grad_scores_, k_, finite_k_, sums_);
      add_transposed(i, j, grad_scores_, q_, finite_q_, block(grad_k_, j));
      add_transposed(i, j, weights_, grad_, finite_grad_, block(grad_v_, j));
    });
  }
  void through_softmax(int64_t keys, int64_t x) {
    const auto largest = load(largest_ + x), inverse = load(total_ + x), delta = load(delta_ + x);
    for (int64_t j = 0; j < keys; ++j) {
      T *a = weights_ + j * kBlock + x, *s = grad_scores_ + j * kBlock + x;
      const auto weight = exponential(load(a) - largest) * inverse;
      store(a, weight);
      store(s, weight * (load(s) - delta));
    }
  }

  // What blocks of queries that see all of a block of keys give to it: the recurrence runs back.
  void add_states_of_queries() {
    int64_t first = blocks_, last = blocks_;  // [first, last) see block j entirely
    for (int64_t j = blocks_ - 1; j >= 0; --j) {
      const auto full = [&](int64_t i) {
        const auto s = sight_of(i);
        return s.full_first <= j && j < s.full_last;
      };
      first = p_.causal ? j + 1 : 0;
      while (first < blocks_ && !full(first)) ++first;
      if (first == blocks_) continue;
      if (last < first) last = first;
      while (last > first && !full(last - 1)) --last;
      const int64_t from = blocks_ - last, to = blocks_ - first;  // counted from the end
      const T* for_keys = queries_.over(from, to, [&](int64_t i, T* at, bool more) {
        add_product(grad_, q_, blocks_ - 1 - i, at, more);
      });
      product<T, true>(count(j), width_, p_.head_dim, block(v_, j), width_, 1, for_keys, width_,
                       block(grad_k_, j), width_);
      const T* for_values = values_.over(from, to, [&](int64_t i, T* at, bool more) {
        add_product(q_, grad_, blocks_ - 1 - i, at, more);
      });
      product<T, true>(count(j), width_, p_.head_dim, block(k_, j), width_, 1, for_values, width_,
                       block(grad_v_, j), width_);
    }
  }
  // to (d, width) = or += left^T right of block b
  void add_product(const T* left, const T* right, int64_t b, T* to, bool more) const {
    const auto run = more ? product<T, true> : product<T, false>;
    run(p_.head_dim, width_, count(b), block(left, b), 1, width_, block(right, b), width_, to,
        width_);
  }

  const Problem<T>& p_;
  const int64_t width_, blocks_;
  Scratch<T> scratch_;
  SlidingState<T> keys_, queries_, values_;
  T *q_, *k_, *v_, *grad_, *grad_k_, *grad_v_;  // (frames, width)
  T *query_columns_, *grad_columns_;            // (head_dim, kBlock) of a block of queries
  T *weights_, *grad_scores_;                   // (kBlock keys, kBlock queries)
  bool *finite_q_, *finite_k_, *finite_v_, *finite_grad_;  // (blocks,)
  T *clean_, *sums_;                                       // (kBlock, width)
  T *largest_, *total_, *shrink_, *delta_;                 // (kBlock,) of the block's queries
};

}  // namespace
}  // namespace halcyon::temporal_detail
