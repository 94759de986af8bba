// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
//
// Matrices are kept "heads in lanes": element (row, head) with the heads of one key and value head
// padded to whole vectors, so that softmax needs no sums across lanes and short runs of tokens
// waste none. Keys and values are never formed: W_k is folded into the query once for the pixel
// (folded = W_k^T q), scores are folded . token, and W_v is applied to the weighted sum of tokens.
#include "halcyon/ops/pixel_attention/cpu_kernel.h"
#include "halcyon/ops/simd-inl.h"

namespace halcyon::pixel_attention_detail {
namespace {

constexpr int64_t kBlock = 64;  // tokens at a time: their scores stay in the first-level cache

template <class T>
struct Sizes {
  int64_t heads_per_kv, lanes_per_kv, lanes, width, padded_width, head_dim;
  explicit Sizes(const Problem<T>& p)
      : heads_per_kv(p.heads / p.n_kv),
        lanes_per_kv(padded<T>(heads_per_kv)),
        lanes(lanes_per_kv * p.n_kv),
        width(p.token_dim),
        padded_width(padded<T>(p.token_dim)),
        head_dim(p.head_dim) {}
  int64_t part() const { return (width + 2) * lanes; }
  int64_t weight_sum(const Problem<T>& p) const { return p.n_kv * head_dim * padded_width; }
  int64_t sums(const Problem<T>& p) const { return 2 * weight_sum(p) + head_dim * lanes; }
};

// One pixel at work in one thread's scratch.
template <class S, class T>
class Pixel {
 public:
  Pixel(const Problem<T>& problem, T* scratch) : p_(problem), z_(problem), scratch_(scratch) {
    query_ = scratch_.take(z_.head_dim * z_.lanes);
    grad_out_ = scratch_.take(z_.head_dim * z_.lanes);
    result_ = scratch_.take(z_.head_dim * z_.lanes);
    folded_ = scratch_.take(z_.width * z_.lanes);
    grad_weighted_ = scratch_.take(z_.width * z_.lanes);
    sum_ = scratch_.take(z_.width * z_.lanes);
    grad_folded_ = scratch_.take(z_.width * z_.lanes);
    folded_rows_ = scratch_.take(z_.lanes * z_.padded_width);
    grad_rows_ = scratch_.take(z_.lanes * z_.padded_width);
    weights_ = scratch_.take(kBlock * z_.lanes);
    grad_scores_ = scratch_.take(kBlock * z_.lanes);
    token_rows_ = scratch_.take(kBlock * z_.padded_width);
    max_ = scratch_.take(z_.lanes);
    total_ = scratch_.take(z_.lanes);
    delta_ = scratch_.take(z_.lanes);
    log_sum_ = scratch_.take(z_.lanes);
  }
  static int64_t scratch_size(const Problem<T>& p) { return Pixel(p, nullptr).scratch_.used(); }

  void load_query(const S* q) {
    load_rows(q, query_);
    fold(p_.w_k, query_, folded_);
  }
  void load_grad_out(const S* g) {
    load_rows(g, grad_out_);
    fold(p_.w_v, grad_out_, grad_weighted_);
  }
  void load_log_sum(const T* lse) {
    for (int64_t i = 0; i < z_.lanes; ++i) log_sum_[i] = 0;
    for (int64_t h = 0; h < p_.heads; ++h) log_sum_[lane(h)] = lse[h];
  }

  // Softmax state (maximum, total, weighted sum of tokens) of a run, block by block.
  void attend(Run run) {
    for (int64_t begin = run.begin; begin < run.end; begin += kBlock) {
      const int64_t count = block_length(run, begin);
      const bool first = begin == run.begin;
      scores(folded_, begin, count, weights_);
      for (int64_t i = 0; i < z_.lanes; i += kN) {
        auto largest = load(weights_ + i);
        for (int64_t j = 1; j < count; ++j)
          largest = larger<T>(largest, load(weights_ + j * z_.lanes + i));
        if (!first) largest = larger<T>(load(max_ + i), largest);
        Vector<T> total{};
        for (int64_t j = 0; j < count; ++j) {
          T* at = weights_ + j * z_.lanes + i;
          const auto weight = exponential(load(at) - largest);
          store(at, weight);
          total += weight;
        }
        if (!first) {
          const auto shrink = exponential(load(max_ + i) - largest);
          total += load(total_ + i) * shrink;
          for (int64_t c = 0; c < z_.width; ++c) scale_row(sum_ + c * z_.lanes + i, shrink);
        }
        store(total_ + i, total);
        store(max_ + i, largest);
      }
      add_weighted(begin, count, weights_, sum_, first);
    }
  }

  void save_state(T* part) const {
    copy(max_, z_.lanes, part);
    copy(total_, z_.lanes, part + z_.lanes);
    copy(sum_, z_.width * z_.lanes, part + 2 * z_.lanes);
  }
  void join_states(const T* parts, int64_t count) {
    const int64_t size = z_.part();
    for (int64_t i = 0; i < z_.lanes; i += kN) {
      auto largest = load(parts + i);
      for (int64_t k = 1; k < count; ++k) largest = larger<T>(largest, load(parts + k * size + i));
      Vector<T> total{};
      for (int64_t c = 0; c < z_.width; ++c) store(sum_ + c * z_.lanes + i, Vector<T>{});
      for (int64_t k = 0; k < count; ++k) {
        const T* part = parts + k * size + i;
        const auto shrink = exponential(load(part) - largest);
        total += load(part + z_.lanes) * shrink;
        for (int64_t c = 0; c < z_.width; ++c) {
          T* at = sum_ + c * z_.lanes + i;
          store(at, load(at) + load(part + (2 + c) * z_.lanes) * shrink);
        }
      }
      store(max_ + i, largest);
      store(total_ + i, total);
    }
  }

  // The pixel's output row from the softmax state.
  void finish(S* out, T* lse) {
    apply(p_.w_v, sum_, result_);
    for (int64_t i = 0; i < z_.lanes; i += kN) {
      const auto inverse = T(1) / load(total_ + i);
      const T* bias = p_.b_v ? p_.b_v + i / z_.lanes_per_kv * z_.head_dim : nullptr;
      for (int64_t c = 0; c < z_.head_dim; ++c) {
        T* at = result_ + c * z_.lanes + i;
        store(at, load(at) * inverse + (bias ? bias[c] : T(0)));
      }
    }
    store_rows(result_, out);
    for (int64_t h = 0; h < p_.heads; ++h) {
      const T total = total_[lane(h)];
      lse[h] =
          max_[lane(h)] + (sizeof(T) == 4 ? T(__builtin_logf(total)) : T(__builtin_log(total)));
    }
  }

  // The softmax-weighted sum of the run's tokens, the log sums being known.
  void weighted_sum(Run run) {
    for (int64_t begin = run.begin; begin < run.end; begin += kBlock) {
      const int64_t count = block_length(run, begin);
      weights_of(begin, count);
      add_weighted(begin, count, weights_, sum_, begin == run.begin);
    }
  }
  const T* weighted() const { return sum_; }
  const T* grad_folded() const { return grad_folded_; }

  // delta = sum_j p_j dp_j for each head, and both factors of the tokens' gradient as rows.
  void prepare_grad_tokens(const T* weighted) {
    for (int64_t i = 0; i < z_.lanes; i += kN) {
      Vector<T> delta{};
      for (int64_t c = 0; c < z_.width; ++c)
        delta += load(grad_weighted_ + c * z_.lanes + i) * load(weighted + c * z_.lanes + i);
      store(delta_ + i, delta);
    }
    to_rows(folded_, folded_rows_);
    to_rows(grad_weighted_, grad_rows_);
  }

  // Gradients of the run's tokens; sums those of the folded query. weights_ may still hold the only
  // block's weights.
  void backward_run(Run run, bool weights_are_there, T* grad_tokens) {
    for (int64_t begin = run.begin; begin < run.end; begin += kBlock) {
      const int64_t count = block_length(run, begin);
      if (!weights_are_there) weights_of(begin, count);
      scores(grad_weighted_, begin, count, grad_scores_);
      for (int64_t j = 0; j < count; ++j) {
        for (int64_t i = 0; i < z_.lanes; i += kN) {
          T* at = grad_scores_ + j * z_.lanes + i;
          store(at, load(weights_ + j * z_.lanes + i) * (load(at) - load(delta_ + i)));
        }
      }
      add_weighted(begin, count, grad_scores_, grad_folded_, begin == run.begin);
      const bool direct = z_.padded_width == z_.width;
      T* rows = direct ? grad_tokens + begin * z_.width : token_rows_;
      product<T, false>(count, z_.padded_width, z_.lanes, grad_scores_, z_.lanes, 1, folded_rows_,
                        z_.padded_width, rows, z_.padded_width);
      product<T, true>(count, z_.padded_width, z_.lanes, weights_, z_.lanes, 1, grad_rows_,
                       z_.padded_width, rows, z_.padded_width);
      for (int64_t j = 0; j < count && !direct; ++j)
        copy(rows + j * z_.padded_width, z_.width, grad_tokens + (begin + j) * z_.width);
    }
  }

  void finish_grad(const T* weighted, const T* grad_folded, S* grad_q, T* sums) {
    apply(p_.w_k, grad_folded, result_);
    store_rows(result_, grad_q);
    const int64_t matrix = z_.weight_sum(p_);
    add_outer(query_, grad_folded, sums);
    add_outer(grad_out_, weighted, sums + matrix);
    T* bias = sums + 2 * matrix;
    for (int64_t i = 0; i < z_.head_dim * z_.lanes; i += kN)
      store(bias + i, load(bias + i) + load(grad_out_ + i));
  }

 private:
  static constexpr int kN = kLanes<T>;

  static void copy(const T* from, int64_t size, T* to) {
    __builtin_memcpy(to, from, static_cast<std::size_t>(size) * sizeof(T));
  }
  static void scale_row(T* at, Vector<T> factor) { store(at, load(at) * factor); }
  static int64_t block_length(Run run, int64_t begin) {
    return run.end - begin < kBlock ? run.end - begin : kBlock;
  }
  int64_t lane(int64_t head) const {
    return head / z_.heads_per_kv * z_.lanes_per_kv + head % z_.heads_per_kv;
  }
  const T* token(int64_t row) const { return p_.tokens + row * z_.width; }

  // (heads, head_dim) in storage <-> (head_dim, lanes); lanes that no head has are zero.
  void load_rows(const S* from, T* to) const {
    if (z_.lanes != p_.heads) {
      for (int64_t i = 0; i < z_.head_dim * z_.lanes; ++i) to[i] = 0;
    }
    for (int64_t g = 0; g < p_.n_kv; ++g) {
      transpose<T>(z_.heads_per_kv, z_.head_dim, from + g * z_.heads_per_kv * z_.head_dim,
                   z_.head_dim, to + g * z_.lanes_per_kv, z_.lanes);
    }
  }
  void store_rows(const T* from, S* to) const {
    for (int64_t g = 0; g < p_.n_kv; ++g) {
      transpose<T>(z_.head_dim, z_.heads_per_kv, from + g * z_.lanes_per_kv, z_.lanes,
                   to + g * z_.heads_per_kv * z_.head_dim, z_.head_dim);
    }
  }
  // (width, lanes) -> (lanes, padded_width)
  void to_rows(const T* from, T* to) const {
    if (z_.padded_width != z_.width) {
      for (int64_t i = 0; i < z_.lanes * z_.padded_width; ++i) to[i] = 0;
    }
    transpose<T>(z_.width, z_.lanes, from, z_.lanes, to, z_.padded_width);
  }

  // w^T x and w x, x (head_dim or width, lanes), each head with the matrix of its key and value
  // head.
  void fold(const T* w, const T* x, T* out) const {
    for (int64_t g = 0; g < p_.n_kv; ++g) {
      product<T, false>(z_.width, z_.lanes_per_kv, z_.head_dim, w + g * z_.head_dim * z_.width, 1,
                        z_.width, x + g * z_.lanes_per_kv, z_.lanes, out + g * z_.lanes_per_kv,
                        z_.lanes);
    }
  }
  void apply(const T* w, const T* x, T* out) const {
    for (int64_t g = 0; g < p_.n_kv; ++g) {
      product<T, false>(z_.head_dim, z_.lanes_per_kv, z_.width, w + g * z_.head_dim * z_.width,
                        z_.width, 1, x + g * z_.lanes_per_kv, z_.lanes, out + g * z_.lanes_per_kv,
                        z_.lanes);
    }
  }
  // sums (n_kv * head_dim, padded_width) += sum over heads of x_h y_h^T
  void add_outer(const T* x, const T* y, T* sums) {
    to_rows(y, folded_rows_);
    for (int64_t g = 0; g < p_.n_kv; ++g) {
      product<T, true>(z_.head_dim, z_.padded_width, z_.heads_per_kv, x + g * z_.lanes_per_kv,
                       z_.lanes, 1, folded_rows_ + g * z_.lanes_per_kv * z_.padded_width,
                       z_.padded_width, sums + g * z_.head_dim * z_.padded_width, z_.padded_width);
    }
  }

  // (count, lanes): each token of the block against x (width, lanes)
  void scores(const T* x, int64_t begin, int64_t count, T* out) const {
    product<T, false>(count, z_.lanes, z_.width, token(begin), z_.width, 1, x, z_.lanes, out,
                      z_.lanes);
  }
  void weights_of(int64_t begin, int64_t count) {
    scores(folded_, begin, count, weights_);
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t i = 0; i < z_.lanes; i += kN) {
        T* at = weights_ + j * z_.lanes + i;
        store(at, exponential(load(at) - load(log_sum_ + i)));
      }
    }
  }
  // out (width, lanes) = or += tokens^T weights
  void add_weighted(int64_t begin, int64_t count, const T* weights, T* out, bool first) const {
    if (first) {
      product<T, false>(z_.width, z_.lanes, count, token(begin), 1, z_.width, weights, z_.lanes,
                        out, z_.lanes);
    } else {
      product<T, true>(z_.width, z_.lanes, count, token(begin), 1, z_.width, weights, z_.lanes, out,
                       z_.lanes);
    }
  }

  const Problem<T>& p_;
  const Sizes<T> z_;
  Scratch<T> scratch_;
  T *query_, *grad_out_, *result_;                    // (head_dim, lanes)
  T *folded_, *grad_weighted_, *sum_, *grad_folded_;  // (width, lanes)
  T *folded_rows_, *grad_rows_;                       // (lanes, padded_width)
  T *weights_, *grad_scores_;                         // (kBlock, lanes)
  T* token_rows_;                                     // (kBlock, padded_width)
  T *max_, *total_, *delta_, *log_sum_;               // (lanes,)
};

template <class S, class T>
Kernel<S, T> make_kernel() {
  using P = const Problem<T>&;
  using Work = Pixel<S, T>;
  Kernel<S, T> k;
  k.scratch_size = [](P p) { return Work::scratch_size(p); };
  k.part_size = [](P p) { return Sizes<T>(p).part(); };
  k.sums_size = [](P p) { return Sizes<T>(p).sums(p); };
  k.forward = [](P p, const S* q, Run run, S* out, T* lse, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.attend(run);
    pixel.finish(out, lse);
  };
  k.backward = [](P p, const S* q, const S* grad_out, const T* lse, Run run, S* grad_q,
                  T* grad_tokens, T* sums, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.load_grad_out(grad_out);
    pixel.load_log_sum(lse);
    pixel.weighted_sum(run);
    pixel.prepare_grad_tokens(pixel.weighted());
    pixel.backward_run(run, run.end - run.begin <= kBlock, grad_tokens);
    pixel.finish_grad(pixel.weighted(), pixel.grad_folded(), grad_q, sums);
  };
  k.forward_part = [](P p, const S* q, Run run, T* part, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.attend(run);
    pixel.save_state(part);
  };
  k.forward_join = [](P p, const T* parts, int64_t count, S* out, T* lse, T* scratch) {
    Work pixel(p, scratch);
    pixel.join_states(parts, count);
    pixel.finish(out, lse);
  };
  k.backward_weighted = [](P p, const S* q, const T* lse, Run run, T* part, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.load_log_sum(lse);
    pixel.weighted_sum(run);
    const Sizes<T> z(p);
    __builtin_memcpy(part, pixel.weighted(),
                     static_cast<std::size_t>(z.width * z.lanes) * sizeof(T));
  };
  k.add_parts = [](P p, T* parts, int64_t count) {
    const Sizes<T> z(p);
    for (int64_t k_part = 1; k_part < count; ++k_part) {
      for (int64_t i = 0; i < z.width * z.lanes; i += kLanes<T>)
        store(parts + i, load(parts + i) + load(parts + k_part * z.part() + i));
    }
  };
  k.backward_part = [](P p, const S* q, const S* grad_out, const T* lse, const T* weighted, Run run,
                       T* grad_tokens, T* part, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.load_grad_out(grad_out);
    pixel.load_log_sum(lse);
    pixel.prepare_grad_tokens(weighted);
    pixel.backward_run(run, false, grad_tokens);
    const Sizes<T> z(p);
    __builtin_memcpy(part, pixel.grad_folded(),
                     static_cast<std::size_t>(z.width * z.lanes) * sizeof(T));
  };
  k.backward_join = [](P p, const S* q, const S* grad_out, const T* weighted, const T* grad_folded,
                       S* grad_q, T* sums, T* scratch) {
    Work pixel(p, scratch);
    pixel.load_query(q);
    pixel.load_grad_out(grad_out);
    pixel.finish_grad(weighted, grad_folded, grad_q, sums);
  };
  k.unpack_sums = [](P p, const T* sums, T* grad_w_k, T* grad_w_v, T* grad_b_v) {
    const Sizes<T> z(p);
    const int64_t rows = p.n_kv * z.head_dim;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < z.width; ++c) {
        grad_w_k[row * z.width + c] = sums[row * z.padded_width + c];
        grad_w_v[row * z.width + c] = sums[(rows + row) * z.padded_width + c];
      }
      const T* bias = sums + 2 * z.weight_sum(p) + row % z.head_dim * z.lanes +
                      row / z.head_dim * z.lanes_per_kv;
      T total = 0;
      for (int64_t h = 0; h < z.heads_per_kv; ++h) total += bias[h];
      grad_b_v[row] = total;
    }
  };
  return k;
}

KernelTable make_kernels() {
  return {make_kernel<float, float>(), make_kernel<Bf16, float>(), make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::pixel_attention_detail
