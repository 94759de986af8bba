// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.

namespace halcyon::attention_detail {
namespace {

template <class S, class U>
class Forward {
 public:
  using T = Sum<U>;

  Forward(const Problem<T>& problem, T* scratch)
      : p_(problem), z_(problem.width), factor_(exponent_factor(problem)), scratch_(scratch) {
    const int64_t blocks = (p_.keys + kKeyBlock - 1) / kKeyBlock;
    keys_ = scratch_.template take<U>(blocks * z_.elements * kKeyBlock);
    values_ = scratch_.template take<U>(blocks * kKeyBlock / kN2 * z_.wide);
    rows_ = scratch_.template take<U>((kKeyBlock + 1) * z_.row);
    scores_ = scratch_.take(kQueryBlock * kKeyBlock);
    weights_ = kPairs ? scratch_.template take<U>(kQueryBlock * kKeyBlock / kN2)
                      : reinterpret_cast<U*>(scores_);
    clean_ = p_.causal ? scratch_.template take<U>(kKeyBlock / kN2 * z_.wide) : nullptr;
    finite_ = scratch_.template take<bool>(blocks);
    result_ = scratch_.take(kQueryBlock * z_.wide);
    largest_ = scratch_.take(kQueryBlock);
    total_ = scratch_.take(kQueryBlock);
    temporary_ = scratch_.take(z_.wide);
  }
  static int64_t scratch_size(const Problem<T>& p) { return Forward(p, nullptr).scratch_.used(); }

  void pack(Rows<const S> key, Rows<const S> value) {
    for (int64_t k = 0; k < p_.keys; k += kKeyBlock) {
      const int64_t count = p_.keys - k < kKeyBlock ? p_.keys - k : kKeyBlock;
      key.data += k == 0 ? 0 : kKeyBlock * key.row;
      value.data += k == 0 ? 0 : kKeyBlock * value.row;
      z_.rows(count, key, p_.key_weight, p_.eps, T(1), temporary_, rows_);
      z_.columns(count, rows_, keys_ + k * z_.elements, kKeyBlock);
      U* const values = values_ + k / kN2 * z_.wide;
      z_.rows(count, value, nullptr, T(0), T(1), temporary_, kPairs ? rows_ : values);
      z_.depth_rows(count, rows_, values);
      finite_[k / kKeyBlock] =
          !p_.causal || are_finite((count + kN2 - 1) / kN2, z_.wide, values, z_.wide);
    }
  }

  void attend(int64_t first, int64_t count, Rows<const S> query, Rows<S> out, Rows<T> lse) {
    z_.rows(count, query, p_.query_weight, p_.eps, sign_of_scale(p_), temporary_, rows_);
    for (int64_t i = 0; i < count; ++i) {
      largest_[i] = -__builtin_inf();
      total_[i] = 0;
    }
    for (int64_t k = 0; k < p_.keys; k += kKeyBlock) {
      if (p_.causal && k > first + count - 1) break;
      const int64_t keys = p_.keys - k < kKeyBlock ? p_.keys - k : kKeyBlock;
      const int64_t columns = (keys + kStep - 1) / kStep * kStep;
      product<U, false>(count, columns, z_.elements, rows_, z_.row, 1, keys_ + k * z_.elements,
                        kKeyBlock, scores_, kKeyBlock);
      for (int64_t i = 0; i < count; ++i)
        weigh(i, visible(p_, first + i, k, keys), columns, /*rescale=*/k > 0);
      if (k == 0) {
        add_values<false>(first, count, k, keys);
      } else {
        add_values<true>(first, count, k, keys);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      T* const row = result_ + i * z_.wide;
      const T inverse = 1 / total_[i];
      for (int64_t c = 0; c < z_.wide; c += kN) store(row + c, load(row + c) * inverse);
      z_.narrow(row, out.data + i * out.row);
      lse.data[i * lse.row] =
          largest_[i] * factor_ * static_cast<T>(kLn2) + __builtin_log(total_[i]);
    }
  }

 private:
  static constexpr int kN = kLanes<T>, kN2 = kNumbersOf<U>, kStep = 2 * kN;
  static constexpr bool kPairs = kN2 == 2;
  static_assert(kKeyBlock % kStep == 0);

  // The weights of a block of keys times its values, of which some may be hidden.
  template <bool Add>
  void add_values(int64_t first, int64_t count, int64_t k, int64_t keys) {
    const U* const values = values_ + k / kN2 * z_.wide;
    const int64_t depth = (keys + kN2 - 1) / kN2;
    if (finite_[k / kKeyBlock] || visible(p_, first, k, keys) == keys) {
      product<U, Add>(count, z_.wide, depth, weights_, kKeyBlock / kN2, 1, values, z_.wide, result_,
                      z_.wide);
    } else {
      seen_product<U, Add>(
          count, z_.wide, depth, weights_, kKeyBlock / kN2, 1, values, z_.wide, result_, z_.wide,
          clean_, [&](int64_t i, int64_t j) { return j < visible(p_, first + i, k, keys); });
    }
  }

  // The online softmax of a row of scores, of which the first `seen` count.
  void weigh(int64_t i, int64_t seen, int64_t columns, bool rescale) {
    T* const row = scores_ + i * kKeyBlock;
    U* const weights = weights_ + i * (kKeyBlock / kN2);
    for (int64_t j = seen < 0 ? 0 : seen; j < columns; ++j) row[j] = -__builtin_inf();
    auto top = load(row);
    for (int64_t j = kN; j < columns; j += kN) top = larger<T>(top, load(row + j));
    const T before = largest_[i], now = largest_lane<T>(top), largest = now > before ? now : before;
    if (seen <= 0) {  // nothing of this block
      for (int64_t j = 0; j < columns; j += kStep)
        store_weights(weights + j / kN2, Vector<T>{}, Vector<T>{});
      return;
    }
    const T base = largest * factor_;
    Vector<T> sums[2] = {};
    for (int64_t j = 0; j < columns; j += kStep) {
      const auto a = power_of_two(load(row + j) * factor_ - base),
                 b = power_of_two(load(row + j + kN) * factor_ - base);
      sums[0] += a;
      sums[1] += b;
      store_weights(weights + j / kN2, a, b);
    }
    const T sum = sum_lanes<T>(sums[0] + sums[1]);
    if (rescale && largest != before) {
      const T shrink = power_of_two(Vector<T>{} + (before * factor_ - base))[0];
      total_[i] *= shrink;
      T* const result = result_ + i * z_.wide;
      for (int64_t c = 0; c < z_.wide; c += kN) store(result + c, load(result + c) * shrink);
    }
    total_[i] += sum;
    largest_[i] = largest;
  }

  const Problem<T>& p_;
  const Packing<S, U> z_;
  const T factor_;
  Scratch<T> scratch_;
  U *keys_, *values_, *rows_, *weights_, *clean_;
  bool* finite_;  // by block of keys: whether its values are
  T *scores_, *result_, *largest_, *total_, *temporary_;
};

}  // namespace
}  // namespace halcyon::attention_detail
