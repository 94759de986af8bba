// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/ops/pixel_attention/backends.h"
#include "halcyon/ops/pixel_attention/cpu_kernel.h"
#include "halcyon/ops/pixel_attention/offsets.h"

namespace halcyon::pixel_attention_detail {
namespace {

// Longer pixels are cut into runs of this many tokens, which threads share.
constexpr int64_t kRun = 8192;

// Pixels in consecutive shares of like work, and those too long for one thread. It depends on the
// offsets alone, so that sums over shares do not depend on the number of threads.
struct Shares {
  std::vector<int64_t> bounds{0};  // share i has pixels bounds[i] .. bounds[i + 1]
  std::vector<int64_t> large;

  Shares(const int64_t* offset, int64_t pixels, int64_t limit) {
    const auto cost = [&](int64_t p) {
      const int64_t count = offset[p + 1] - offset[p];
      return count == 0 || count > kRun ? int64_t{1} : count + 32;  // folding costs like 32 tokens
    };
    int64_t total = 0;
    for (int64_t p = 0; p < pixels; ++p) total += cost(p);
    const int64_t share = std::max<int64_t>(4096, (total + limit - 1) / limit);
    int64_t sum = 0;
    for (int64_t p = 0; p < pixels; ++p) {
      if (offset[p + 1] - offset[p] > kRun) large.push_back(p);
      sum += cost(p);
      if (sum >= share || p + 1 == pixels) {
        bounds.push_back(p + 1);
        sum = 0;
      }
    }
  }
  int64_t size() const { return static_cast<int64_t>(bounds.size()) - 1; }
};

template <class S>
S* data(const at::Tensor& t) {
  return static_cast<S*>(t.mutable_data_ptr());
}

// The inputs as the kernels want them.
template <class S, class T>
class Call {
 public:
  Call(const Inputs& in, const Kernel<S, T>& kernel)
      : kernel_(kernel),
        type_(c10::CppTypeToScalarType<T>::value),
        row_(in.q.size(1) * in.q.size(2)),
        heads_(in.q.size(1)),
        width_(in.tokens.size(1)),
        q_(in.q.to(storage_type()).contiguous()),
        tokens_(in.tokens.to(type_).contiguous()),
        w_k_((in.w_k.to(type_) * in.scale).contiguous()),
        w_v_(in.w_v.to(type_).contiguous()),
        b_v_(in.b_v ? in.b_v->to(type_).contiguous() : at::Tensor()),
        offsets_(host_offsets(in.cu_seqlens, "pixel_attention")),
        offset_(offsets_.const_data_ptr<int64_t>()),
        problem_{in.q.size(1),
                 in.n_kv,
                 in.q.size(2),
                 width_,
                 tokens_.const_data_ptr<T>(),
                 w_k_.const_data_ptr<T>(),
                 w_v_.const_data_ptr<T>(),
                 in.b_v ? b_v_.const_data_ptr<T>() : nullptr} {}

  Forward forward() const {
    const auto out = at::empty_like(q_);
    const auto lse = at::empty({q_.size(0), heads_}, at::dtype(type_));
    const Shares shares(offset_, q_.size(0), 1024);
    in_parallel(shares.size(), [&](int64_t i, T* scratch) {
      for (int64_t p = shares.bounds[i]; p < shares.bounds[i + 1]; ++p) {
        const Run run{offset_[p], offset_[p + 1]};
        S* out_row = data<S>(out) + p * row_;
        T* lse_row = data<T>(lse) + p * heads_;
        if (run.begin == run.end) {
          std::fill_n(out_row, row_, S{});
          std::fill_n(lse_row, heads_, T(0));
        } else if (run.end - run.begin <= kRun) {
          kernel_.forward(problem_, query(p), run, out_row, lse_row, scratch);
        }
      }
    });
    for (const int64_t p : shares.large) {
      const auto runs = cut(p);
      const auto parts = at::empty({count(runs) * kernel_.part_size(problem_)}, at::dtype(type_));
      in_parallel(count(runs), [&](int64_t i, T* scratch) {
        kernel_.forward_part(problem_, query(p), runs[i], part(parts, i), scratch);
      });
      const auto scratch = new_scratch();
      kernel_.forward_join(problem_, data<T>(parts), count(runs), data<S>(out) + p * row_,
                           data<T>(lse) + p * heads_, data<T>(scratch));
    }
    return {out, lse};
  }

  Gradients backward(const at::Tensor& lse, const at::Tensor& grad) const {
    const auto grad_out = grad.to(storage_type()).contiguous();
    const auto grad_q = at::empty_like(q_), grad_tokens = at::empty_like(tokens_);
    const int64_t size = kernel_.sums_size(problem_);
    constexpr int64_t kSums = int64_t{1} << 25;  // elements that the shares' sums may take
    const Shares shares(offset_, q_.size(0), std::clamp<int64_t>(kSums / size, 1, 256));
    const auto sums = at::zeros({shares.size() + 1, size}, at::dtype(type_));

    in_parallel(shares.size(), [&](int64_t i, T* scratch) {
      for (int64_t p = shares.bounds[i]; p < shares.bounds[i + 1]; ++p) {
        const Run run{offset_[p], offset_[p + 1]};
        if (run.begin == run.end) {
          std::fill_n(data<S>(grad_q) + p * row_, row_, S{});
        } else if (run.end - run.begin <= kRun) {
          kernel_.backward(problem_, query(p), data<S>(grad_out) + p * row_, log_sum(lse, p), run,
                           data<S>(grad_q) + p * row_, data<T>(grad_tokens),
                           data<T>(sums) + i * size, scratch);
        }
      }
    });
    for (const int64_t p : shares.large) {
      const auto runs = cut(p);
      const auto options = at::dtype(type_);
      const auto weighted = at::empty({count(runs) * kernel_.part_size(problem_)}, options);
      const auto folded = at::empty_like(weighted);
      const S* g = data<S>(grad_out) + p * row_;
      in_parallel(count(runs), [&](int64_t i, T* scratch) {
        kernel_.backward_weighted(problem_, query(p), log_sum(lse, p), runs[i], part(weighted, i),
                                  scratch);
      });
      kernel_.add_parts(problem_, data<T>(weighted), count(runs));
      in_parallel(count(runs), [&](int64_t i, T* scratch) {
        kernel_.backward_part(problem_, query(p), g, log_sum(lse, p), data<T>(weighted), runs[i],
                              data<T>(grad_tokens), part(folded, i), scratch);
      });
      kernel_.add_parts(problem_, data<T>(folded), count(runs));
      const auto scratch = new_scratch();
      kernel_.backward_join(problem_, query(p), g, data<T>(weighted), data<T>(folded),
                            data<S>(grad_q) + p * row_, data<T>(sums) + shares.size() * size,
                            data<T>(scratch));
    }
    return weight_gradients(grad_q, grad_tokens, sums);
  }

 private:
  static at::ScalarType storage_type() {
    if constexpr (std::is_same_v<S, Bf16>)
      return at::kBFloat16;
    else
      return c10::CppTypeToScalarType<S>::value;
  }
  template <class F>
  void in_parallel(int64_t items, const F& work) const {
    at::parallel_for(0, items, 1, [&](int64_t first, int64_t last) {
      const auto scratch = new_scratch();
      for (int64_t i = first; i < last; ++i) work(i, data<T>(scratch));
    });
  }
  at::Tensor new_scratch() const {
    return at::empty({kernel_.scratch_size(problem_)}, at::dtype(type_));
  }
  const S* query(int64_t p) const { return static_cast<const S*>(q_.const_data_ptr()) + p * row_; }
  const T* log_sum(const at::Tensor& lse, int64_t p) const {
    return lse.const_data_ptr<T>() + p * heads_;
  }
  T* part(const at::Tensor& parts, int64_t i) const {
    return data<T>(parts) + i * kernel_.part_size(problem_);
  }
  static int64_t count(const std::vector<Run>& runs) { return static_cast<int64_t>(runs.size()); }
  std::vector<Run> cut(int64_t p) const {
    std::vector<Run> runs;
    for (int64_t begin = offset_[p]; begin < offset_[p + 1]; begin += kRun)
      runs.push_back({begin, std::min(begin + kRun, offset_[p + 1])});
    return runs;
  }

  // Adds the shares' sums up, in double and in their order.
  Gradients weight_gradients(const at::Tensor& grad_q, const at::Tensor& grad_tokens,
                             const at::Tensor& sums) const {
    const int64_t size = sums.size(1);
    std::vector<double> total(size);
    for (int64_t share = 0; share < sums.size(0); ++share) {
      const T* row = sums.const_data_ptr<T>() + share * size;
      for (int64_t i = 0; i < size; ++i) total[i] += row[i];
    }
    std::copy(total.begin(), total.end(), data<T>(sums));
    auto grad_w_k = at::empty_like(w_k_), grad_w_v = at::empty_like(w_v_);
    auto grad_b_v = at::empty({w_v_.size(0)}, w_v_.options());
    kernel_.unpack_sums(problem_, sums.const_data_ptr<T>(), data<T>(grad_w_k), data<T>(grad_w_v),
                        data<T>(grad_b_v));
    return {grad_q, grad_tokens, grad_w_k, grad_w_v, problem_.b_v ? grad_b_v : at::Tensor()};
  }

  Kernel<S, T> kernel_;
  at::ScalarType type_;
  int64_t row_, heads_, width_;
  at::Tensor q_, tokens_, w_k_, w_v_, b_v_, offsets_;
  const int64_t* offset_;
  Problem<T> problem_;
};

template <class F>
auto dispatch(const Inputs& in, CpuLevel level, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (in.accumulate() == at::kDouble) return f(Call<double, double>(in, table.f64));
  if (in.q.scalar_type() == at::kBFloat16) return f(Call<Bf16, float>(in, table.bf16));
  return f(Call<float, float>(in, table.f32));
}

}  // namespace

Forward forward_cpu(const Inputs& in, CpuLevel level) {
  auto result = dispatch(in, level, [](const auto& call) { return call.forward(); });
  result.out = result.out.to(in.q.scalar_type());
  return result;
}

Gradients backward_cpu(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                       CpuLevel level) {
  auto grad = dispatch(in, level,
                       [&](const auto& call) { return call.backward(lse.contiguous(), grad_out); });
  grad.w_k = grad.w_k * in.scale;  // the kernels saw scale * W_k
  return grad;
}

}  // namespace halcyon::pixel_attention_detail
