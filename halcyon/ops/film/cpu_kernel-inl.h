// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/film/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::film_detail {
namespace {

constexpr int64_t kBlock = 48;  // observations at a time: whole tiles of a product, in the L1 cache

template <class S, class T>
class Block {
 public:
  Block(const Problem<T>& problem, Rows<S> in, T* scratch)
      : p_(problem), in_(in), scratch_(scratch) {
    if constexpr (kConverts) converted_ = scratch_.take(kBlock * p_.meta);
    normed_ = scratch_.take(kBlock * p_.hidden_p);
    hidden_ = scratch_.take(kBlock * p_.hidden_p);
    film_ = scratch_.take(kBlock * 2 * p_.out_p);
    inverse_ = scratch_.take(kBlock);
    slope_ = scratch_.take(kBlock * p_.hidden_p);
    from_alpha_ = scratch_.take(kBlock * (p_.hidden_p > p_.meta_p ? p_.hidden_p : p_.meta_p));
    grad_ = scratch_.take(kBlock * p_.hidden_p);
  }
  static int64_t scratch_size(const Problem<T>& p) { return Block(p, {}, nullptr).scratch_.used(); }

  void forward(int64_t first, int64_t count, S* out) {
    hide<false>(first, count);
    product<T, false>(count, 2 * p_.out_p, p_.hidden, normed_, p_.hidden_p, 1, p_.w2_t,
                      2 * p_.out_p, film_, 2 * p_.out_p);
    for (int64_t i = 0; i < count; ++i) write(i, out);
  }

  // With alpha = A h + a of the second layer, the token's gradient g gives its observation
  // h . A^T g + a . g, so that alpha itself is not computed again.
  void backward(int64_t first, int64_t count, const S* grad_out, S* grad_obs, S* grad_meta,
                const Sums<T>& sums) {
    hide<true>(first, count);
    for (int64_t i = 0; i < count; ++i) film_gradient(i, grad_out, sums.b2);
    product<T, true>(p_.hidden, 2 * p_.out_p, count, hidden_, 1, p_.hidden_p, film_, 2 * p_.out_p,
                     sums.w2_t, 2 * p_.out_p);
    const T* g = film_ + p_.out_p;
    product<T, false>(count, p_.hidden_p, p_.out, g, 2 * p_.out_p, 1, p_.w2, p_.hidden_p,
                      from_alpha_, p_.hidden_p);
    product<T, false>(count, p_.hidden_p, p_.out, g, 2 * p_.out_p, 1,
                      p_.w2 + p_.out_p * p_.hidden_p, p_.hidden_p, grad_, p_.hidden_p);
    for (int64_t i = 0; i < count; i += kN)
      norm_gradient(i, count - i < kN ? count - i : kN, grad_obs, sums);
    product<T, true>(p_.meta, p_.hidden_p, count, meta_, 1, p_.meta, grad_, p_.hidden_p, sums.w1_t,
                     p_.hidden_p);
    if (grad_meta) metadata_gradient(grad_meta);
  }

 private:
  static constexpr int kN = kLanes<T>;
  static constexpr bool kConverts = sizeof(S) != sizeof(T);
  static_assert(kBlock % kN == 0);

  // The layers up to the hidden one of observations first .. first + count. The forward overwrites
  // what stood before it; the backward keeps what it needs.
  template <bool Keep>
  void hide(int64_t first, int64_t count) {
    first_ = first;
    count_ = count;
    read_metadata();
    product<T, false>(count, p_.hidden_p, p_.meta, meta_, p_.meta, 1, p_.w1_t, p_.hidden_p, normed_,
                      p_.hidden_p);
    for (int64_t i = 0; i < count; i += kN) normalise<Keep>(i, count - i < kN ? count - i : kN);
  }

  void read_metadata() {
    const S* from = in_.meta + first_ * p_.meta;
    if constexpr (kConverts) {
      const int64_t size = count_ * p_.meta;
      int64_t i = 0;
      for (; i + kN <= size; i += kN) store(converted_ + i, load(from + i));
      for (; i < size; ++i) converted_[i] = get(from + i);
      meta_ = converted_;
    } else {
      meta_ = from;
    }
  }

  // Rows i .. i + n of normed_, the metadata's part of the first layer: the embeddings' parts are
  // added, and the whole is normalised, scaled, shifted and goes through SiLU. Rows are summed
  // together, as lanes of one vector. (What the loops read is copied from p_ first, which a store
  // might alias for all that the compiler knows.)
  template <bool Keep>
  void normalise(int64_t i, int64_t n) {
    const int64_t width = p_.hidden_p;
    const int tables = p_.tables;
    const T share = T(1) / static_cast<T>(p_.hidden);
    const T *inside = p_.inside, *norm_w = p_.norm_w, *norm_b = p_.norm_b;
    T* const rows = normed_ + i * width;
    Vector<T> of_row[kN] = {};
    for (int64_t r = 0; r < n; ++r) {
      T* z = rows + r * width;
      const T* part[kMostTables];
      for (int t = 0; t < kMostTables; ++t) {
        const auto& table = p_.table[t < tables ? t : 0];
        part[t] = table.rows + table.ids[first_ + i + r] * width;
      }
      Vector<T> sum{};
      for (int64_t c = 0; c < width; c += kN) {
        auto x = load(z + c) + load(part[0] + c) + load(part[1] + c);
        if (tables > 2) x += load(part[2] + c);
        store(z + c, x);
        sum += x;
      }
      of_row[r] = sum;
    }
    const Vector<T> mean = sums_of_rows<T>(of_row) * share;
    for (int64_t r = 0; r < n; ++r) {
      T* z = rows + r * width;
      const T shift = mean[r];
      Vector<T> squares{};
      for (int64_t c = 0; c < width; c += kN) {
        const auto x = (load(z + c) - shift) * load(inside + c);
        store(z + c, x);
        squares += x * x;
      }
      of_row[r] = squares;
    }
    const Vector<T> variance = sums_of_rows<T>(of_row) * share + p_.eps;
    T* const inverse = inverse_ + i;
    for (int r = 0; r < kN; ++r) {
      const T root =
          sizeof(T) == 4 ? T(__builtin_sqrtf(variance[r])) : T(__builtin_sqrt(variance[r]));
      inverse[r] = T(1) / root;
    }
    T *const hidden = hidden_ + i * width, *const slope = slope_ + i * width;
    for (int64_t r = 0; r < n; ++r) {
      const T scale = inverse[r];
      T* z = rows + r * width;
#pragma GCC unroll 4
      for (int64_t c = 0; c < width; c += kN) {
        const auto x = load(z + c) * scale;
        const auto y = x * load(norm_w + c) + load(norm_b + c);
        const auto sigmoid = reciprocal(T(1) + exponential(-y));
        const auto h = y * sigmoid;
        if constexpr (Keep) {
          store(z + c, x);
          store(hidden + r * width + c, h);
          store(slope + r * width + c, sigmoid + h * (T(1) - sigmoid));
        } else {
          store(z + c, h);
        }
      }
    }
  }

  void write(int64_t i, S* out) const {
    const int64_t width = p_.out;
    const T obs = get(in_.obs + first_ + i);
    const T *alpha = film_ + i * 2 * p_.out_p, *beta = alpha + p_.out_p;
    const T *shift_a = p_.b2, *shift_b = p_.b2 + p_.out_p;
    S* row = out + (first_ + i) * width;
    int64_t c = 0;
    for (; c + kN <= width; c += kN) {
      store(row + c,
            (load(alpha + c) + load(shift_a + c)) * obs + (load(beta + c) + load(shift_b + c)));
    }
    for (; c < width; ++c) put(row + c, (alpha[c] + shift_a[c]) * obs + (beta[c] + shift_b[c]));
  }

  // film_: the gradient of (alpha | beta); of_obs_: what alpha's bias gives.
  void film_gradient(int64_t i, const S* grad_out, T* sum_b2) {
    const int64_t width = p_.out, width_p = p_.out_p;
    const T obs = get(in_.obs + first_ + i);
    T *alpha = film_ + i * 2 * width_p, *beta = alpha + width_p;
    const S* g = grad_out + (first_ + i) * width;
    int64_t c = 0;
    for (; c + kN <= width; c += kN) store(beta + c, load(g + c));
    for (; c < width; ++c) beta[c] = get(g + c);
    for (; c < width_p; ++c) beta[c] = 0;
    const T* shift = p_.b2;
    Vector<T> along{};
    for (c = 0; c < width_p; c += kN) {
      const auto from_beta = load(beta + c), from_alpha = from_beta * obs;
      along += from_beta * load(shift + c);
      store(alpha + c, from_alpha);
      store(sum_b2 + c, load(sum_b2 + c) + from_alpha);
      store(sum_b2 + width_p + c, load(sum_b2 + width_p + c) + from_beta);
    }
    of_obs_[i] = sum_lanes<T>(along);
  }

  // Rows i .. i + n of the gradient of the hidden layer, from alpha and from beta -> grad_, of the
  // first layer's output, and with it the embeddings' parts.
  void norm_gradient(int64_t i, int64_t n, S* grad_obs, const Sums<T>& sums) {
    const int64_t width = p_.hidden_p;
    const int tables = p_.tables;
    const T share = T(1) / static_cast<T>(p_.hidden);
    const T *inside = p_.inside, *norm_w = p_.norm_w;
    const T *normed = normed_ + i * width, *hidden = hidden_ + i * width,
            *slope = slope_ + i * width, *from_alpha = from_alpha_ + i * width;
    T *const grad = grad_ + i * width, *const sum_w = sums.norm_w, *const sum_b = sums.norm_b;
    Vector<T> of_row[kN] = {}, along_row[kN] = {}, obs_row[kN] = {};
    for (int64_t r = 0; r < n; ++r) {
      const T obs = get(in_.obs + first_ + i + r);
      Vector<T> sum{}, along{}, of_obs{};
      for (int64_t c = 0; c < width; c += kN) {
        const int64_t at = r * width + c;
        const auto x = load(normed + at), u = load(from_alpha + at);
        of_obs += u * load(hidden + at);
        const auto of_y = (u * obs + load(grad + at)) * load(slope + at);
        store(sum_w + c, load(sum_w + c) + of_y * x);
        store(sum_b + c, load(sum_b + c) + of_y);
        const auto of_x = of_y * load(norm_w + c);
        store(grad + at, of_x);
        sum += of_x;
        along += of_x * x;
      }
      of_row[r] = sum;
      along_row[r] = along;
      obs_row[r] = of_obs;
    }
    const Vector<T> mean = sums_of_rows<T>(of_row) * share;
    const Vector<T> tilt = sums_of_rows<T>(along_row) * share;
    const Vector<T> of_obs = sums_of_rows<T>(obs_row);
    for (int64_t r = 0; r < n; ++r) {
      put(grad_obs + first_ + i + r, of_obs[r] + of_obs_[i + r]);
      const T shift = mean[r], lean = tilt[r], scale = inverse_[i + r];
      T* to[kMostTables];
      for (int t = 0; t < kMostTables; ++t) {
        const int own = t < tables ? t : 0;
        to[t] = sums.table[own] + p_.table[own].ids[first_ + i + r] * width;
      }
      for (int64_t c = 0; c < width; c += kN) {
        const int64_t at = r * width + c;
        const auto of_z =
            (load(grad + at) - shift - load(normed + at) * lean) * scale * load(inside + c);
        store(grad + at, of_z);
        store(to[0] + c, load(to[0] + c) + of_z);
        store(to[1] + c, load(to[1] + c) + of_z);
        if (tables > 2) store(to[2] + c, load(to[2] + c) + of_z);
      }
    }
  }

  void metadata_gradient(S* grad_meta) {
    product<T, false>(count_, p_.meta_p, p_.hidden, grad_, p_.hidden_p, 1, p_.w1, p_.meta_p,
                      from_alpha_, p_.meta_p);
    const int64_t width = p_.meta;
    for (int64_t i = 0; i < count_; ++i) {
      const T* row = from_alpha_ + i * p_.meta_p;
      S* to = grad_meta + (first_ + i) * width;
      int64_t c = 0;
      for (; c + kN <= width; c += kN) store(to + c, load(row + c));
      for (; c < width; ++c) put(to + c, row[c]);
    }
  }

  const Problem<T>& p_;
  const Rows<S> in_;
  Scratch<T> scratch_;
  int64_t first_ = 0, count_ = 0;
  const T* meta_ = nullptr;  // (count, meta): the input's, or converted_
  T* converted_ = nullptr;   // (kBlock, meta)
  T* normed_;                // (kBlock, hidden_p): normalised; in the forward also after it
  T *hidden_, *slope_;       // (kBlock, hidden_p): after SiLU, and SiLU's derivative
  T* film_;                  // (kBlock, 2 * out_p), without b2
  T* inverse_;               // (kBlock,): 1 / standard deviation
  T* from_alpha_;            // (kBlock, hidden_p or meta_p)
  T* grad_;                  // (kBlock, hidden_p)
  T of_obs_[kBlock];         // the observations' gradients, in part
};

template <class S, class T>
Kernel<S, T> make_kernel() {
  using P = const Problem<T>&;
  Kernel<S, T> kernel;
  kernel.scratch_size = [](P p) { return Block<S, T>::scratch_size(p); };
  kernel.forward = [](P p, Rows<S> in, int64_t first, int64_t last, S* out, T* scratch) {
    Block<S, T> block(p, in, scratch);
    for (; first < last; first += kBlock)
      block.forward(first, last - first < kBlock ? last - first : kBlock, out);
  };
  kernel.backward = [](P p, Rows<S> in, const S* grad_out, int64_t first, int64_t last, S* grad_obs,
                       S* grad_meta, const Sums<T>& sums, T* scratch) {
    Block<S, T> block(p, in, scratch);
    for (; first < last; first += kBlock)
      block.backward(first, last - first < kBlock ? last - first : kBlock, grad_out, grad_obs,
                     grad_meta, sums);
  };
  return kernel;
}

KernelTable make_kernels() {
  return {HALCYON_VECTOR_BYTES, make_kernel<float, float>(), make_kernel<Bf16, float>(),
          make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::film_detail
