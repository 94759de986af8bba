// SPDX-License-Identifier: Apache-2.0
// Included once by each instruction set's file; see simd-inl.h.
#include "halcyon/ops/simd-inl.h"
#include "halcyon/ops/temporal/cpu_kernel.h"

namespace halcyon::temporal_detail {
namespace {

// One head of one pixel: its frames lie in scratch as rows of whole vectors, zero-padded.
template <class S, class T>
class Head {
 public:
  Head(const Problem<T>& problem, T* scratch)
      : p_(problem), width_(padded<T>(problem.head_dim)), scratch_(scratch) {
    q_ = take(p_.frames * width_);
    k_ = take(p_.frames * width_);
    v_ = take(p_.frames * width_);
    grad_ = take(p_.frames * width_);
    row_ = take(width_);
    weights_ = take(p_.frames * p_.frames);
    grad_scores_ = take(p_.frames * p_.frames);
  }
  static int64_t scratch_size(const Problem<T>& p) { return Head(p, nullptr).used_; }

  void load_inputs(Frames<const S> q, Frames<const S> k, Frames<const S> v, int64_t head) {
    load_rows(q, head, q_);
    load_rows(k, head, k_);
    load_rows(v, head, v_);
    if (p_.cos) {
      rotate(q_);
      rotate(k_);
    }
  }

  void score() {
    for (int64_t i = 0; i < p_.frames; ++i) {
      T* a = weights_ + i * p_.frames;
      for (int64_t j = first(i); j < last(i); ++j)
        a[j] = p_.scale * dot(q_ + i * width_, k_ + j * width_);
      if (!p_.linear) softmax(a, first(i), last(i));
    }
  }

  void forward(Frames<S> out, int64_t head) {
    for (int64_t i = 0; i < p_.frames; ++i) {
      const T* a = weights_ + i * p_.frames;
      for (int64_t c = 0; c < width_; c += kN) {
        Vector<T> sum{};
        for (int64_t j = first(i); j < last(i); ++j) sum += a[j] * load(v_ + j * width_ + c);
        store(row_ + c, sum);
      }
      store_row(row_, out, i, head);
    }
  }

  void backward(Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k, Frames<S> grad_v,
                int64_t head) {
    load_rows(grad_out, head, grad_);
    for (int64_t i = 0; i < p_.frames; ++i) {
      const T* a = weights_ + i * p_.frames;
      T* s = grad_scores_ + i * p_.frames;
      T mean = 0;
      for (int64_t j = first(i); j < last(i); ++j) {
        s[j] = dot(grad_ + i * width_, v_ + j * width_);
        mean += a[j] * s[j];
      }
      for (int64_t j = first(i); j < last(i); ++j)
        s[j] = p_.scale * (p_.linear ? s[j] : a[j] * (s[j] - mean));
    }
    for (int64_t i = 0; i < p_.frames; ++i) {
      combine(grad_scores_ + i * p_.frames, 1, first(i), last(i), k_);
      unrotate(i);
      store_row(row_, grad_q, i, head);
    }
    for (int64_t j = 0; j < p_.frames; ++j) {  // j is seen by the frames of [from, to)
      const int64_t from = p_.causal ? j : 0;
      const int64_t to = p_.frames - j < p_.window ? p_.frames : j + p_.window;
      combine(grad_scores_ + j, p_.frames, from, to, q_);
      unrotate(j);
      store_row(row_, grad_k, j, head);
      combine(weights_ + j, p_.frames, from, to, grad_);
      store_row(row_, grad_v, j, head);
    }
  }

 private:
  static constexpr int kN = kLanes<T>;

  T* take(int64_t size) {
    T* start = scratch_ ? scratch_ + used_ : nullptr;
    used_ += size;
    return start;
  }
  // Frames that i may see: [first, last).
  int64_t first(int64_t i) const { return i < p_.window ? 0 : i - p_.window + 1; }
  int64_t last(int64_t i) const { return p_.causal ? i + 1 : p_.frames; }

  void load_rows(Frames<const S> from, int64_t head, T* to) const {
    for (int64_t t = 0; t < p_.frames; ++t) {
      const S* row = from.data + t * from.stride + head * p_.head_dim;
      int64_t c = 0;
      for (; c + kN <= p_.head_dim; c += kN) store(to + t * width_ + c, load(row + c));
      for (; c < p_.head_dim; ++c) to[t * width_ + c] = get(row + c);
      for (; c < width_; ++c) to[t * width_ + c] = 0;
    }
  }
  void store_row(const T* row, Frames<S> out, int64_t t, int64_t head) const {
    S* to = out.data + t * out.stride + head * p_.head_dim;
    int64_t c = 0;
    for (; c + kN <= p_.head_dim; c += kN) store(to + c, load(row + c));
    for (; c < p_.head_dim; ++c) put(to + c, row[c]);
  }

  void rotate(T* rows) const {
    for (int64_t t = 0; t < p_.frames; ++t) {
      const T *cos = p_.cos + t * p_.head_dim, *turn = p_.turn + t * p_.head_dim;
      T* row = rows + t * width_;
      int64_t c = 0;
      for (; c + kN <= p_.head_dim; c += kN) {
        const auto x = load(row + c);
        store(row + c, x * load(cos + c) + swap_pairs<T>(x) * load(turn + c));
      }
      for (; c < p_.head_dim; c += 2) {
        const T a = row[c], b = row[c + 1];
        row[c] = a * cos[c] + b * turn[c];
        row[c + 1] = b * cos[c + 1] + a * turn[c + 1];
      }
    }
  }
  // The transposed rotation of frame t, on row_.
  void unrotate(int64_t t) {
    if (!p_.cos) return;
    const T *cos = p_.cos + t * p_.head_dim, *turn = p_.turn + t * p_.head_dim;
    int64_t c = 0;
    for (; c + kN <= p_.head_dim; c += kN) {
      const auto x = load(row_ + c);
      store(row_ + c, x * load(cos + c) + swap_pairs<T>(x * load(turn + c)));
    }
    for (; c < p_.head_dim; c += 2) {
      const T a = row_[c], b = row_[c + 1];
      row_[c] = a * cos[c] + b * turn[c + 1];
      row_[c + 1] = b * cos[c + 1] + a * turn[c];
    }
  }

  T dot(const T* a, const T* b) const {
    Vector<T> sum{};
    for (int64_t c = 0; c < width_; c += kN) sum += load(a + c) * load(b + c);
    return sum_lanes<T>(sum);
  }
  // row_ = sum over j of weight[j * stride] rows[j]
  void combine(const T* weight, int64_t stride, int64_t from, int64_t to, const T* rows) {
    for (int64_t c = 0; c < width_; c += kN) {
      Vector<T> sum{};
      for (int64_t j = from; j < to; ++j) sum += weight[j * stride] * load(rows + j * width_ + c);
      store(row_ + c, sum);
    }
  }
  static void softmax(T* a, int64_t from, int64_t to) {
    T largest = a[from];
    for (int64_t j = from + 1; j < to; ++j) largest = a[j] > largest ? a[j] : largest;
    T total = 0;
    for (int64_t j = from; j < to; ++j) {
      a[j] = sizeof(T) == 4 ? T(__builtin_expf(a[j] - largest)) : T(__builtin_exp(a[j] - largest));
      total += a[j];
    }
    for (int64_t j = from; j < to; ++j) a[j] /= total;
  }

  const Problem<T>& p_;
  const int64_t width_;
  T* const scratch_;
  int64_t used_ = 0;
  T *q_, *k_, *v_, *grad_;     // (frames, width)
  T* row_;                     // (width,)
  T *weights_, *grad_scores_;  // (frames, frames)
};

template <class S, class T>
Kernel<S, T> make_kernel() {
  using P = const Problem<T>&;
  Kernel<S, T> kernel;
  kernel.scratch_size = [](P p) { return Head<S, T>::scratch_size(p); };
  kernel.forward = [](P p, Frames<const S> q, Frames<const S> k, Frames<const S> v, Frames<S> out,
                      T* scratch) {
    Head<S, T> head(p, scratch);
    for (int64_t h = 0; h < p.heads; ++h) {
      head.load_inputs(q, k, v, h);
      head.score();
      head.forward(out, h);
    }
  };
  kernel.backward = [](P p, Frames<const S> q, Frames<const S> k, Frames<const S> v,
                       Frames<const S> grad_out, Frames<S> grad_q, Frames<S> grad_k,
                       Frames<S> grad_v, T* scratch) {
    Head<S, T> head(p, scratch);
    for (int64_t h = 0; h < p.heads; ++h) {
      head.load_inputs(q, k, v, h);
      head.score();
      head.backward(grad_out, grad_q, grad_k, grad_v, h);
    }
  };
  return kernel;
}

KernelTable make_kernels() {
  return {make_kernel<float, float>(), make_kernel<Bf16, float>(), make_kernel<double, double>()};
}

}  // namespace
}  // namespace halcyon::temporal_detail
