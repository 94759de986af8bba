// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h.

namespace halcyon::attention_detail {
namespace {

// Rows i and i + 1 of a block of queries by keys: as right operands over the queries' depth they
// are packed with each other, as left operands over the keys' each for itself.
template <class T>
inline void store_over_queries(T* to, int64_t row, Vector<T> first, Vector<T> second) {
  store(to, first);
  store(to + row, second);
}
#ifdef __AVX512BF16__
inline void store_over_queries(Bf16Pair* to, int64_t /*row*/, Vector<float> first,
                               Vector<float> second) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  const auto low = (Half)_mm512_cvtneps_pbh((__m512)first),
             high = (Half)_mm512_cvtneps_pbh((__m512)second);
  const auto pairs = __builtin_convertvector(low, Vector<uint32_t>) |
                     __builtin_convertvector(high, Vector<uint32_t>) << 16;
  __builtin_memcpy(to, &pairs, sizeof(pairs));
}
#endif

// Five products of each pair of blocks: the scores again, their weights' gradient, and the three
// results.
template <class S, class U>
class Backward {
 public:
  using T = Sum<U>;

  Backward(const Problem<T>& problem, int64_t keys, T* scratch)
      : p_(problem), z_(problem.width), factor_(exponent_factor(problem)), scratch_(scratch) {
    const int64_t queries = (p_.queries + 1) / 2 * 2;
    const auto take_elements = [&](int64_t n) { return scratch_.template take<U>(n); };
    query_ = take_elements(queries * z_.row);
    grad_ = take_elements(queries * z_.row);
    deep_query_ = kPairs ? take_elements(queries / 2 * z_.wide) : query_;
    deep_grad_ = kPairs ? take_elements(queries / 2 * z_.wide) : grad_;
    log_sum_ = scratch_.take(queries);
    delta_ = scratch_.take(queries);
    rows_ = take_elements((kKeyBlock + 1) * z_.row);
    keys_ = take_elements(z_.elements * kKeyBlock);
    deep_keys_ = kPairs ? take_elements(kKeyBlock / 2 * z_.wide) : rows_;
    values_ = take_elements(z_.elements * kKeyBlock);
    scores_ = scratch_.take(kQueryBlock * kKeyBlock);
    slopes_ = scratch_.take(kQueryBlock * kKeyBlock);
    weights_ = elements_of(scores_);
    deep_slopes_ = elements_of(slopes_);
    left_slopes_ = elements_of(slopes_);
    clean_ = p_.causal ? take_elements(kKeyBlock / kN2 * z_.wide) : nullptr;
    finite_ = scratch_.template take<bool>((queries + kQueryBlock - 1) / kQueryBlock);
    grad_key_ = scratch_.take(keys * z_.wide);
    grad_value_ = scratch_.take(keys * z_.wide);
    temporary_ = scratch_.take(z_.wide);
  }
  static int64_t scratch_size(const Problem<T>& p, int64_t keys) {
    return Backward(p, keys, nullptr).scratch_.used();
  }

  void run(const Share<S, T>& s) {
    for (int64_t i = 0; i < s.keys * z_.wide; ++i) grad_key_[i] = grad_value_[i] = 0;
    for (int64_t h = 0; h < s.heads; ++h) {
      T* const grad_query = s.grad_query + h * p_.queries * z_.wide;
      for (int64_t i = 0; i < p_.queries * z_.wide; ++i) grad_query[i] = 0;
      pack_queries(s, h);
      for (int64_t k = 0; k < s.keys; k += kKeyBlock) {
        const int64_t count = s.keys - k < kKeyBlock ? s.keys - k : kKeyBlock;
        pack_keys(s, s.first_key + k, count);
        for (int64_t q = 0; q < p_.queries; q += kQueryBlock) {
          const int64_t queries = p_.queries - q < kQueryBlock ? p_.queries - q : kQueryBlock;
          if (p_.causal && q + queries <= s.first_key + k) continue;
          blocks(q, queries, s.first_key + k, count, grad_query + q * z_.wide,
                 grad_key_ + k * z_.wide, grad_value_ + k * z_.wide);
        }
      }
    }
    finish_keys(s);
  }

 private:
  static constexpr int kN = kLanes<T>, kN2 = kNumbersOf<U>;
  static constexpr bool kPairs = kN2 == 2;
  static_assert(kQueryBlock % 2 == 0 && kQueryBlock <= kKeyBlock);

  U* elements_of(T* numbers) {
    return kPairs ? scratch_.template take<U>(kQueryBlock * kKeyBlock / kN2)
                  : reinterpret_cast<U*>(numbers);
  }

  void pack_queries(const Share<S, T>& s, int64_t h) {
    const auto of = [&](auto rows) {
      rows.data += h * rows.head;
      return rows;
    };
    const auto query = of(s.query), out = of(s.out), grad = of(s.grad_out);
    z_.rows(p_.queries, query, p_.query_weight, p_.eps, sign_of_scale(p_), temporary_, query_);
    z_.rows(p_.queries, grad, nullptr, T(0), T(1), temporary_, grad_);
    z_.depth_rows(p_.queries, query_, deep_query_);
    z_.depth_rows(p_.queries, grad_, deep_grad_);
    for (int64_t q = 0; p_.causal && q < p_.queries; q += kQueryBlock) {
      const int64_t queries = p_.queries - q < kQueryBlock ? p_.queries - q : kQueryBlock;
      finite_[q / kQueryBlock] = is_finite(queries, deep_query_ + q / kN2 * z_.wide) &&
                                 is_finite(queries, deep_grad_ + q / kN2 * z_.wide);
    }
    for (int64_t i = 0; i < p_.queries; ++i) {
      const S *a = out.data + i * out.row, *b = grad.data + i * grad.row;
      T sum = 0;
      int64_t c = 0;
      Vector<T> sums = {};
      for (; c + kN <= p_.width; c += kN) sums += load(a + c) * load(b + c);
      for (; c < p_.width; ++c) sum += get(a + c) * get(b + c);
      delta_[i] = sum + sum_lanes<T>(sums);
      if (s.grad_lse.data) delta_[i] -= s.grad_lse.data[h * s.grad_lse.head + i * s.grad_lse.row];
      log_sum_[i] = s.lse.data[h * s.lse.head + i * s.lse.row] * static_cast<T>(kLog2E);
    }
  }

  bool is_finite(int64_t tokens, const U* deep) const {
    return are_finite((tokens + kN2 - 1) / kN2, z_.wide, deep, z_.wide);
  }

  void pack_keys(const Share<S, T>& s, int64_t first, int64_t count) {
    auto key = s.key, value = s.value;
    key.data += first * key.row;
    value.data += first * value.row;
    z_.rows(count, value, nullptr, T(0), T(1), temporary_, rows_);
    z_.columns(count, rows_, values_, kKeyBlock);
    z_.rows(count, key, p_.key_weight, p_.eps, T(1), temporary_, rows_);
    z_.columns(count, rows_, keys_, kKeyBlock);
    z_.depth_rows(count, rows_, deep_keys_);
    finite_keys_ = !p_.causal || is_finite(count, deep_keys_);
  }

  void blocks(int64_t q, int64_t queries, int64_t k, int64_t keys, T* grad_query, T* grad_key,
              T* grad_value) {
    constexpr int64_t kStep = kN * kN2;
    const int64_t columns = (keys + kStep - 1) / kStep * kStep;
    const auto left = [&](const U* rows, const U* right, T* to) {
      product<U, false>(queries, columns, z_.elements, rows + q * z_.row, z_.row, 1, right,
                        kKeyBlock, to, kKeyBlock);
    };
    left(query_, keys_, scores_);
    left(grad_, values_, slopes_);
    for (int64_t i = 0; i < queries; i += 2) {
      const bool both = i + 1 < queries;
      slope_rows(i, both, q + i, k, keys, columns);
    }
    const bool whole = visible(p_, q, k, keys) == keys;
    const auto seen = [&](int64_t i, int64_t j) { return j < visible(p_, q + i, k, keys); };
    const int64_t depth = (queries + kN2 - 1) / kN2;
    const auto over_queries = [&](const U* block, const U* right, T* to) {
      right += q / kN2 * z_.wide;
      if (whole || finite_[q / kQueryBlock]) {
        product<U, true>(keys, z_.wide, depth, block, 1, kKeyBlock, right, z_.wide, to, z_.wide);
      } else {
        seen_product<U, true>(keys, z_.wide, depth, block, 1, kKeyBlock, right, z_.wide, to,
                              z_.wide, clean_, [&](int64_t j, int64_t i) { return seen(i, j); });
      }
    };
    over_queries(weights_, deep_grad_, grad_value);
    over_queries(deep_slopes_, deep_query_, grad_key);
    if (whole || finite_keys_) {
      product<U, true>(queries, z_.wide, (keys + kN2 - 1) / kN2, left_slopes_, kKeyBlock / kN2, 1,
                       deep_keys_, z_.wide, grad_query, z_.wide);
    } else {
      seen_product<U, true>(queries, z_.wide, (keys + kN2 - 1) / kN2, left_slopes_, kKeyBlock / kN2,
                            1, deep_keys_, z_.wide, grad_query, z_.wide, clean_, seen);
    }
  }

  // The weights of rows i and i + 1 and the gradients of their scores, 0 where they are hidden.
  void slope_rows(int64_t i, bool both, int64_t query, int64_t k, int64_t keys, int64_t columns) {
    T* const score = scores_ + i * kKeyBlock;
    T* const slope = slopes_ + i * kKeyBlock;
    const int64_t seen[2] = {visible(p_, query, k, keys),
                             both ? visible(p_, query + 1, k, keys) : 0};
    Vector<T> lane;
    for (int l = 0; l < kN; ++l) lane[l] = static_cast<T>(l);
    const T base[2] = {log_sum_[query], both ? log_sum_[query + 1] : 0},
            delta[2] = {delta_[query], both ? delta_[query + 1] : 0};
    for (int64_t j = 0; j < columns; j += kN * kN2) {
      Vector<T> weight[2][kN2], gradient[2][kN2];
      for (int r = 0; r < 2; ++r) {
        for (int v = 0; v < kN2; ++v) {
          const int64_t at = r * kKeyBlock + j + v * kN;
          weight[r][v] = power_of_two(load(score + at) * factor_ - base[r]);
          gradient[r][v] = weight[r][v] * (load(slope + at) - delta[r]);
          const int64_t left = seen[r] - j - v * kN;
          if (left >= kN) continue;
          const auto inside = lane < static_cast<T>(left);
          weight[r][v] = inside ? weight[r][v] : Vector<T>{};
          gradient[r][v] = inside ? gradient[r][v] : Vector<T>{};
        }
      }
      for (int v = 0; v < kN2; ++v) {
        const int64_t at = i / kN2 * kKeyBlock + j + v * kN;
        store_over_queries(weights_ + at, kKeyBlock, weight[0][v], weight[1][v]);
        store_over_queries(deep_slopes_ + at, kKeyBlock, gradient[0][v], gradient[1][v]);
      }
      if constexpr (kPairs) {
        for (int r = 0; r < 2; ++r)
          store_weights(left_slopes_ + ((i + r) * kKeyBlock + j) / kN2, gradient[r][0],
                        gradient[r][1]);
      }
    }
  }

  void finish_keys(const Share<S, T>& s) {
    const T scale = p_.scale < 0 ? -p_.scale : p_.scale;
    for (int64_t j = 0; j < s.keys; ++j) {
      T* const grad = grad_key_ + j * z_.wide;
      for (int64_t c = 0; c < z_.wide; c += kN) store(grad + c, load(grad + c) * scale);
      const int64_t key = s.first_key + j;
      if (p_.key_weight) {
        z_.widen(s.key.data + key * s.key.row, temporary_);
        z_.pull_back(temporary_, p_.key_weight, p_.eps, grad, s.add_key_weight);
      }
      z_.narrow(grad, s.grad_key.data + key * s.grad_key.row);
      z_.narrow(grad_value_ + j * z_.wide, s.grad_value.data + key * s.grad_value.row);
    }
  }

  const Problem<T>& p_;
  const Packing<S, U> z_;
  const T factor_;
  Scratch<T> scratch_;
  U *query_, *grad_, *deep_query_, *deep_grad_, *rows_, *keys_, *deep_keys_, *values_, *weights_,
      *deep_slopes_, *left_slopes_, *clean_;
  bool* finite_;  // by block of queries: whether they and the gradients of their results are
  bool finite_keys_ = true;
  T *log_sum_, *delta_, *scores_, *slopes_, *grad_key_, *grad_value_, *temporary_;
};

// scratch (2 padded widths).
template <class S, class U, class T = Sum<U>>
void finish_queries(const Problem<T>& p, int64_t parts, int64_t apart, const T* sums,
                    Rows<const S> query, Rows<S> grad_query, T* add_weight, T* scratch) {
  const Packing<S, U> z(p.width);
  T *const grad = scratch, *const x = scratch + z.wide;
  for (int64_t i = 0; i < p.queries; ++i) {
    for (int64_t c = 0; c < z.wide; c += kLanes<T>) {
      auto sum = load(sums + i * z.wide + c);
      for (int64_t part = 1; part < parts; ++part)
        sum += load(sums + part * apart + i * z.wide + c);
      store(grad + c, sum * p.scale);
    }
    if (p.query_weight) {
      z.widen(query.data + i * query.row, x);
      z.pull_back(x, p.query_weight, p.eps, grad, add_weight);
    }
    z.narrow(grad, grad_query.data + i * grad_query.row);
  }
}

}  // namespace
}  // namespace halcyon::attention_detail
