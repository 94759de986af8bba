// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/film/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::film_detail {
namespace {

constexpr int64_t kBlock = 64;  // observations at a time: all layers stay in the cache

template <class S, class T>
class Block {
 public:
  Block(const Problem<T>& problem, Rows<S> in, T* scratch)
      : p_(problem), in_(in), scratch_(scratch) {
    cond_ = take(kBlock * p_.cond_p);
    normed_ = take(kBlock * p_.hidden_p);
    hidden_ = take(kBlock * p_.hidden_p);
    film_ = take(kBlock * 2 * p_.out_p);
    inverse_ = take(kBlock);
    grad_ = take(kBlock * p_.hidden_p);
  }
  static int64_t scratch_size(const Problem<T>& p) { return Block(p, {}, nullptr).used_; }

  // All layers of observations first .. first + count.
  void compute(int64_t first, int64_t count) {
    first_ = first;
    count_ = count;
    gather();
    product<T, false>(count, p_.hidden_p, p_.cond, cond_, p_.cond_p, 1, p_.w1_t, p_.hidden_p,
                      normed_, p_.hidden_p);
    for (int64_t i = 0; i < count; ++i) normalise(i);
    product<T, false>(count, 2 * p_.out_p, p_.hidden, hidden_, p_.hidden_p, 1, p_.w2_t,
                      2 * p_.out_p, film_, 2 * p_.out_p);
  }

  void write(S* out) const {
    for (int64_t i = 0; i < count_; ++i) {
      const T obs = get(in_.obs + first_ + i);
      const T *alpha = film_ + i * 2 * p_.out_p, *beta = alpha + p_.out_p;
      S* row = out + (first_ + i) * p_.out;
      int64_t c = 0;
      for (; c + kN <= p_.out; c += kN) {
        store(row + c, (load(alpha + c) + load(p_.b2 + c)) * obs +
                           (load(beta + c) + load(p_.b2 + p_.out_p + c)));
      }
      for (; c < p_.out; ++c)
        put(row + c, (alpha[c] + p_.b2[c]) * obs + (beta[c] + p_.b2[p_.out_p + c]));
    }
  }

  void backward(const S* grad_out, S* grad_obs, S* grad_meta, const Sums<T>& sums) {
    for (int64_t i = 0; i < count_; ++i) film_gradient(i, grad_out, grad_obs, sums.b2);
    product<T, true>(p_.hidden, 2 * p_.out_p, count_, hidden_, 1, p_.hidden_p, film_, 2 * p_.out_p,
                     sums.w2_t, 2 * p_.out_p);
    product<T, false>(count_, p_.hidden_p, 2 * p_.out_p, film_, 2 * p_.out_p, 1, p_.w2, p_.hidden_p,
                      grad_, p_.hidden_p);
    for (int64_t i = 0; i < count_; ++i) norm_gradient(i, sums);
    product<T, true>(p_.cond, p_.hidden_p, count_, cond_, 1, p_.cond_p, grad_, p_.hidden_p,
                     sums.w1_t, p_.hidden_p);
    product<T, false>(count_, p_.cond_p, p_.hidden, grad_, p_.hidden_p, 1, p_.w1, p_.cond_p, cond_,
                      p_.cond_p);
    scatter(grad_meta, sums);
  }

 private:
  static constexpr int kN = kLanes<T>;

  T* take(int64_t size) {
    T* start = scratch_ ? scratch_ + used_ : nullptr;
    used_ += size;
    return start;
  }

  void gather() {
    for (int64_t i = 0; i < count_; ++i) {
      T* row = cond_ + i * p_.cond_p;
      const S* meta = in_.meta + (first_ + i) * p_.meta;
      for (int64_t c = 0; c < p_.meta; ++c) row[c] = get(meta + c);
      row += p_.meta;
      for (int t = 0; t < p_.tables; ++t) {
        const auto& table = p_.table[t];
        const T* from = table.rows + table.ids[first_ + i] * table.width;
        for (int64_t c = 0; c < table.width; ++c) row[c] = from[c];
        row += table.width;
      }
    }
  }

  // normed_: the first layer's output -> normalised; hidden_: after scale, shift and SiLU.
  void normalise(int64_t i) {
    T *z = normed_ + i * p_.hidden_p, *h = hidden_ + i * p_.hidden_p;
    const T share = T(1) / static_cast<T>(p_.hidden);
    Vector<T> sum{};
    for (int64_t c = 0; c < p_.hidden_p; c += kN) {
      const auto x = load(z + c) + load(p_.b1 + c);
      store(z + c, x);
      sum += x;
    }
    const T mean = sum_lanes<T>(sum) * share;
    Vector<T> squares{};
    for (int64_t c = 0; c < p_.hidden_p; c += kN) {
      const auto x = (load(z + c) - mean) * load(p_.inside + c);
      store(z + c, x);
      squares += x * x;
    }
    const T variance = sum_lanes<T>(squares) * share + p_.eps;
    const T root = sizeof(T) == 4 ? T(__builtin_sqrtf(variance)) : T(__builtin_sqrt(variance));
    inverse_[i] = T(1) / root;
    for (int64_t c = 0; c < p_.hidden_p; c += kN) {
      const auto x = load(z + c) * inverse_[i];
      store(z + c, x);
      const auto y = x * load(p_.norm_w + c) + load(p_.norm_b + c);
      store(h + c, y / (T(1) + exponential(-y)));
    }
  }

  // film_ (alpha | beta) -> its gradient; also the observation's.
  void film_gradient(int64_t i, const S* grad_out, S* grad_obs, T* sum_b2) {
    const T obs = get(in_.obs + first_ + i);
    T *alpha = film_ + i * 2 * p_.out_p, *beta = alpha + p_.out_p;
    const S* g = grad_out + (first_ + i) * p_.out;
    T of_obs = 0;
    for (int64_t c = 0; c < p_.out; ++c) {
      beta[c] = get(g + c);
      of_obs += beta[c] * (alpha[c] + p_.b2[c]);
    }
    for (int64_t c = p_.out; c < p_.out_p; ++c) beta[c] = 0;
    put(grad_obs + first_ + i, of_obs);
    for (int64_t c = 0; c < p_.out_p; c += kN) {
      const auto from_beta = load(beta + c), from_alpha = from_beta * obs;
      store(alpha + c, from_alpha);
      store(sum_b2 + c, load(sum_b2 + c) + from_alpha);
      store(sum_b2 + p_.out_p + c, load(sum_b2 + p_.out_p + c) + from_beta);
    }
  }

  // grad_: of the hidden layer -> of the first layer's output.
  void norm_gradient(int64_t i, const Sums<T>& sums) {
    T* g = grad_ + i * p_.hidden_p;
    const T* normed = normed_ + i * p_.hidden_p;
    const T share = T(1) / static_cast<T>(p_.hidden);
    Vector<T> sum{}, along{};
    for (int64_t c = 0; c < p_.hidden_p; c += kN) {
      const auto x = load(normed + c), w = load(p_.norm_w + c);
      const auto y = x * w + load(p_.norm_b + c);
      const auto sigmoid = T(1) / (T(1) + exponential(-y));
      const auto of_y = load(g + c) * sigmoid * (T(1) + y * (T(1) - sigmoid));
      store(sums.norm_w + c, load(sums.norm_w + c) + of_y * x);
      store(sums.norm_b + c, load(sums.norm_b + c) + of_y);
      const auto of_x = of_y * w;
      store(g + c, of_x);
      sum += of_x;
      along += of_x * x;
    }
    const T mean = sum_lanes<T>(sum) * share, slope = sum_lanes<T>(along) * share;
    for (int64_t c = 0; c < p_.hidden_p; c += kN) {
      const auto of_z = (load(g + c) - mean - load(normed + c) * slope) * inverse_[i];
      const auto kept = of_z * load(p_.inside + c);
      store(g + c, kept);
      store(sums.b1 + c, load(sums.b1 + c) + kept);
    }
  }

  // cond_, now its gradient, to the metadata and the tables.
  void scatter(S* grad_meta, const Sums<T>& sums) const {
    for (int64_t i = 0; i < count_; ++i) {
      const T* row = cond_ + i * p_.cond_p;
      S* meta = grad_meta + (first_ + i) * p_.meta;
      for (int64_t c = 0; c < p_.meta; ++c) put(meta + c, row[c]);
      row += p_.meta;
      for (int t = 0; t < p_.tables; ++t) {
        const auto& table = p_.table[t];
        T* to = sums.table[t] + table.ids[first_ + i] * table.width;
        for (int64_t c = 0; c < table.width; ++c) to[c] += row[c];
        row += table.width;
      }
    }
  }

  const Problem<T>& p_;
  const Rows<S> in_;
  T* const scratch_;
  int64_t used_ = 0, first_ = 0, count_ = 0;
  T* cond_;                      // (kBlock, cond_p)
  T *normed_, *hidden_, *grad_;  // (kBlock, hidden_p)
  T* film_;                      // (kBlock, 2 * out_p), without b2
  T* inverse_;                   // (kBlock,): 1 / standard deviation
};

template <class S, class T>
Kernel<S, T> make_kernel() {
  using P = const Problem<T>&;
  Kernel<S, T> kernel;
  kernel.scratch_size = [](P p) { return Block<S, T>::scratch_size(p); };
  kernel.forward = [](P p, Rows<S> in, int64_t first, int64_t last, S* out, T* scratch) {
    Block<S, T> block(p, in, scratch);
    for (; first < last; first += kBlock) {
      block.compute(first, last - first < kBlock ? last - first : kBlock);
      block.write(out);
    }
  };
  kernel.backward = [](P p, Rows<S> in, const S* grad_out, int64_t first, int64_t last, S* grad_obs,
                       S* grad_meta, const Sums<T>& sums, T* scratch) {
    Block<S, T> block(p, in, scratch);
    for (; first < last; first += kBlock) {
      block.compute(first, last - first < kBlock ? last - first : kBlock);
      block.backward(grad_out, grad_obs, grad_meta, sums);
    }
  };
  return kernel;
}

KernelTable make_kernels() {
  return {HALCYON_VECTOR_BYTES, make_kernel<float, float>(), make_kernel<Bf16, float>(),
          make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::film_detail
