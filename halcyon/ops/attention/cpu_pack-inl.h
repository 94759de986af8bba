// SPDX-License-Identifier: Apache-2.0
// Part of cpu_kernel-inl.h: tokens as the products of the kernels read them.

namespace halcyon::attention_detail {
namespace {

// How tokens of `width` channels in storage S are packed as elements U of a product:
//   rows       (tokens, row): left operands whose depth is the channels
//   columns    (elements, tokens): right operands whose depth is the channels
//   depth rows (tokens / kPerElement, wide): right operands whose depth is the tokens
// Numbers that are their own elements have rows that are depth rows too.
template <class S, class U>
class Packing {
 public:
  using T = Sum<U>;
  static constexpr int kN = kLanes<T>;
  static constexpr int kPerElement = kNumbersOf<U>;

  explicit Packing(int64_t channels)
      : width(channels),
        wide(padded<T>(channels)),
        elements((channels + kPerElement - 1) / kPerElement),
        row(kPerElement == 1 ? wide : elements) {}

  // The channels of a token, zeros behind them.
  void widen(const S* from, T* to) const {
    const int64_t whole = width / kN * kN;
    for (int64_t c = 0; c < whole; c += kN) store(to + c, load(from + c));
    for (int64_t c = whole; c < wide; ++c) to[c] = c < width ? get(from + c) : T(0);
  }
  void narrow(const T* from, S* to) const {
    const int64_t whole = width / kN * kN;
    for (int64_t c = 0; c < whole; c += kN) store(to + c, load(from + c));
    for (int64_t c = whole; c < width; ++c) put(to + c, from[c]);
  }

  // sum of a b over a widened row
  T dot(const T* a, const T* b) const {
    Vector<T> sum = {};
    for (int64_t c = 0; c < wide; c += kN) sum += load(a + c) * load(b + c);
    return sum_lanes<T>(sum);
  }
  T inverse_rms(const T* x, T eps) const {
    return 1 / __builtin_sqrt(dot(x, x) / static_cast<T>(width) + eps);
  }

  // Tokens as rows, times factor, and times their inverse root mean square and weight (wide,) where
  // that is not null. temporary (wide,).
  void rows(int64_t tokens, Rows<const S> from, const T* weight, T eps, T factor, T* temporary,
            U* to) const {
    for (int64_t t = 0; t < tokens; ++t) {
      const S* const token = from.data + t * from.row;
      U* const out = to + t * row;
      if constexpr (kPerElement == 2) {
        if (width % 2 != 0) out[elements - 1].bits = 0;
        if (!weight && factor == 1) {
          __builtin_memcpy(out, token, static_cast<std::size_t>(width) * sizeof(S));
          continue;
        }
      }
      widen(token, temporary);
      const T all = weight ? factor * inverse_rms(temporary, eps) : factor;
      for (int64_t c = 0; c < wide; c += kN) {
        const auto x = load(temporary + c) * all;
        store(temporary + c, weight ? x * load(weight + c) : x);
      }
      if constexpr (kPerElement == 2) {
        narrow(temporary, reinterpret_cast<S*>(out));
      } else {
        __builtin_memcpy(out, temporary, static_cast<std::size_t>(wide) * sizeof(T));
      }
    }
  }

  // Columns from rows; what stands between `tokens` and `room` becomes zero.
  void columns(int64_t tokens, const U* rows, U* to, int64_t room) const {
    const auto* const from = reinterpret_cast<const T*>(rows);
    auto* const out = reinterpret_cast<T*>(to);
    transpose<T>(tokens, elements, from, row, out, room);
    for (int64_t e = 0; e < elements; ++e)
      for (int64_t t = tokens; t < room; ++t) out[e * room + t] = 0;
  }

  // Depth rows from rows, where they differ.
  void depth_rows(int64_t tokens, const U* rows, U* to) const {
    if constexpr (kPerElement == 2) {
      for (int64_t t = 0; t < tokens; t += 2) {
        const auto* const a = reinterpret_cast<const S*>(rows + t * row);
        const auto* const b = reinterpret_cast<const S*>(rows + (t + 1) * row);
        U* const out = to + t / 2 * wide;
        for (int64_t c = 0; c < wide; ++c) {
          const uint32_t low = c < width ? a[c].bits : 0;
          const uint32_t high = c < width && t + 1 < tokens ? b[c].bits : 0;
          out[c].bits = low | high << 16;
        }
      }
    }
  }

  // x's gradient, over grad, from that of x times its inverse root mean square and weight (wide,);
  // the weight's is added up.
  void pull_back(const T* x, const T* weight, T eps, T* grad, T* add_weight) const {
    const T inverse = inverse_rms(x, eps);
    Vector<T> sum = {};
    for (int64_t c = 0; c < wide; c += kN) {
      const auto g = load(grad + c), a = load(x + c);
      if (add_weight) store(add_weight + c, load(add_weight + c) + g * a * inverse);
      sum += g * load(weight + c) * a;
    }
    const T pull = sum_lanes<T>(sum) / static_cast<T>(width) * inverse * inverse;
    for (int64_t c = 0; c < wide; c += kN)
      store(grad + c, inverse * (load(grad + c) * load(weight + c) - load(x + c) * pull));
  }

  const int64_t width, wide, elements, row;
};

}  // namespace
}  // namespace halcyon::attention_detail
