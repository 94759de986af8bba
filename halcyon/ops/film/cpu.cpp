// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ceil_div.h>

#include <algorithm>
#include <bit>

#include "halcyon/ops/film/backends.h"
#include "halcyon/ops/film/cpu_kernel.h"
#include "halcyon/ops/film/folded_table.h"

namespace halcyon::film_detail {
namespace {

template <class S>
S* data(const at::Tensor& t) {
  return static_cast<S*>(t.mutable_data_ptr());
}

// The inputs as the kernels want them.
template <class S, class T>
class Call {
 public:
  Call(const Inputs& in, const Kernel<S, T>& kernel, int64_t vector_bytes)
      : kernel_(kernel),
        type_(c10::CppTypeToScalarType<T>::value),
        storage_(std::is_same_v<S, Bf16> ? at::kBFloat16 : type_),
        lanes_(vector_bytes / static_cast<int64_t>(sizeof(T))),
        obs_(in.floats[kObs].to(storage_).contiguous()),
        meta_(in.floats[kMeta].to(storage_).contiguous()) {
    auto& p = problem_;
    p.meta = meta_.size(1);
    p.hidden = in.floats[kWeight1].size(0);
    p.out = in.floats[kWeight2].size(0) / 2;
    p.meta_p = at::round_up(p.meta, lanes_);
    p.hidden_p = at::round_up(p.hidden, lanes_);
    p.out_p = at::round_up(p.out, lanes_);
    p.tables = static_cast<int>(in.ids.size());
    p.eps = static_cast<T>(in.eps);
    const auto w1 = in.floats[kWeight1].to(type_);
    const auto w1_meta = w1.slice(1, 0, p.meta);
    p.w1_t = keep(columns(w1_meta.t(), p.hidden_p));
    p.w1 = keep(columns(w1_meta, p.meta_p));
    int64_t column = p.meta;
    for (int i = 0; i < p.tables; ++i) {
      const auto table = in.floats[kTables + i].to(type_);
      const auto weight = w1.slice(1, column, column + table.size(1));
      column += table.size(1);
      const auto& own =
          tables_.emplace_back(table, weight, in.ids[i].to(at::kLong).contiguous(), rows());
      const auto bias = i == 0 ? in.floats[kBias1].to(type_) : at::Tensor();
      p.table[i] = {keep(columns(own.folded(bias), p.hidden_p)),
                    own.ids().template const_data_ptr<int64_t>()};
    }
    p.norm_w = keep(columns(in.floats[kNormWeight].to(type_), p.hidden_p));
    p.norm_b = keep(columns(in.floats[kNormBias].to(type_), p.hidden_p));
    p.inside = keep(columns(at::ones({p.hidden}, type_), p.hidden_p));
    const auto w2 = in.floats[kWeight2].to(type_);
    p.w2_t = keep(film_columns(w2.t()));
    p.w2 = keep(columns(film_columns(w2.t()).t(), p.hidden_p));
    p.b2 = keep(film_columns(in.floats[kBias2].to(type_)));
  }

  at::Tensor forward() const {
    const auto out = at::empty({rows(), problem_.out}, at::dtype(storage_));
    constexpr int64_t kGrain = 1024;
    at::parallel_for(0, rows(), kGrain, [&](int64_t first, int64_t last) {
      const auto scratch = new_scratch();
      kernel_.forward(problem_, inputs(), first, last, data<S>(out), data<T>(scratch));
    });
    return out;
  }

  // Shares of observations sum up apart, and in their order in the end, so that the result does not
  // depend on the number of threads.
  std::vector<at::Tensor> backward(const at::Tensor& grad, bool of_metadata) const {
    const auto grad_out = grad.to(storage_).contiguous();
    const auto grad_obs = at::empty_like(obs_);
    const auto grad_meta = at::empty({of_metadata ? rows() : 0, problem_.meta}, meta_.options());
    std::vector<int64_t> sizes{problem_.meta * problem_.hidden_p,
                               problem_.hidden * 2 * problem_.out_p, problem_.hidden_p,
                               problem_.hidden_p, 2 * problem_.out_p};
    for (const auto& table : tables_) sizes.push_back(table.rows() * problem_.hidden_p);
    int64_t size = 0;
    for (const auto s : sizes) size += s;
    const int64_t shares = shares_of(size);
    const auto sums = at::empty({shares, size}, at::dtype(type_));
    at::parallel_for(0, shares, 1, [&](int64_t first, int64_t last) {
      const auto scratch = new_scratch();
      for (int64_t i = first; i < last; ++i) {
        T* at = data<T>(sums) + i * size;
        std::fill_n(at, size, T(0));
        T* begin[5 + kMostTables] = {};
        for (size_t k = 0; k < sizes.size(); at += sizes[k++]) begin[k] = at;
        const Sums<T> s{begin[0], begin[1], begin[2],
                        begin[3], begin[4], {begin[5], begin[6], begin[7]}};
        kernel_.backward(problem_, inputs(), data<S>(grad_out), rows() * i / shares,
                         rows() * (i + 1) / shares, data<S>(grad_obs),
                         of_metadata ? data<S>(grad_meta) : nullptr, s, data<T>(scratch));
      }
    });
    auto total = sums[0].to(at::kDouble);
    for (int64_t i = 1; i < shares; ++i) total += sums[i];
    const auto parts = total.split_with_sizes(sizes);
    const auto& p = problem_;
    std::vector<at::Tensor> weight1{parts[0].view({p.meta, p.hidden_p}).slice(1, 0, p.hidden).t()};
    std::vector<at::Tensor> tables;
    at::Tensor bias1;
    for (size_t i = 0; i < tables_.size(); ++i) {
      const auto grad_folded = parts[5 + i].view({-1, p.hidden_p}).slice(1, 0, p.hidden);
      auto [of_weight, of_table, of_bias] = tables_[i].unfolded(grad_folded);
      if (i == 0) bias1 = of_bias;
      weight1.push_back(of_weight);
      tables.push_back(of_table);
    }
    std::vector<at::Tensor> result{
        grad_obs,
        grad_meta,
        at::cat(weight1, 1),
        bias1,
        parts[2].slice(0, 0, p.hidden),
        parts[3].slice(0, 0, p.hidden),
        parts[1].view({p.hidden, 2, p.out_p}).slice(2, 0, p.out).flatten(1).t(),
        parts[4].view({2, p.out_p}).slice(1, 0, p.out).flatten()};
    result.insert(result.end(), tables.begin(), tables.end());
    return result;
  }

 private:
  // A share clears and adds up `size` sums, which must stay small beside its observations' work; a
  // power of two divides among the threads that there usually are.
  int64_t shares_of(int64_t size) const {
    const int64_t least = std::max<int64_t>(4096, size / 8);
    constexpr int64_t kSums = int64_t{1} << 24;  // elements that the shares' sums may take
    const int64_t most = std::clamp<int64_t>(kSums / size, 1, 64);
    const auto wanted = static_cast<uint64_t>(std::clamp<int64_t>(rows() / least, 1, most));
    return static_cast<int64_t>(std::bit_ceil(wanted));
  }
  int64_t rows() const { return obs_.size(0); }
  Rows<S> inputs() const {
    return {static_cast<const S*>(obs_.const_data_ptr()),
            static_cast<const S*>(meta_.const_data_ptr())};
  }
  at::Tensor new_scratch() const {
    return at::empty({kernel_.scratch_size(problem_)}, at::dtype(type_));
  }
  const T* keep(const at::Tensor& t) {
    kept_.push_back(t.contiguous());
    return kept_.back().template const_data_ptr<T>();
  }
  static at::Tensor columns(const at::Tensor& t, int64_t width) {
    return at::constant_pad_nd(t, {0, width - t.size(-1)});
  }
  // The last axis 2 * out -> 2 * out_p, each half padded.
  at::Tensor film_columns(const at::Tensor& t) const {
    return columns(t.unflatten(-1, {2, problem_.out}), problem_.out_p).flatten(-2);
  }

  Kernel<S, T> kernel_;
  at::ScalarType type_, storage_;
  int64_t lanes_;
  at::Tensor obs_, meta_;
  std::vector<at::Tensor> kept_;
  std::vector<FoldedTable> tables_;
  Problem<T> problem_{};
};

template <class F>
auto dispatch(const Inputs& in, CpuLevel level, const F& f) {
  check_ids(in);
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (in.accumulate() == at::kDouble) return f(Call<double, double>(in, table.f64, table.bytes));
  const bool narrow = in.floats[kObs].scalar_type() == at::kBFloat16 &&
                      in.floats[kMeta].scalar_type() == at::kBFloat16 &&
                      result_type(in) == at::kBFloat16;
  if (narrow) return f(Call<Bf16, float>(in, table.bf16, table.bytes));
  return f(Call<float, float>(in, table.f32, table.bytes));
}

}  // namespace

at::Tensor forward_cpu(const Inputs& in, CpuLevel level) {
  return dispatch(in, level, [](const auto& call) { return call.forward(); }).to(result_type(in));
}

std::vector<at::Tensor> backward_cpu(const Inputs& in, const at::Tensor& grad_out, bool of_metadata,
                                     CpuLevel level) {
  auto grad =
      dispatch(in, level, [&](const auto& call) { return call.backward(grad_out, of_metadata); });
  for (size_t i = 0; i < grad.size(); ++i)
    grad[i] = grad[i].to(in.floats[i].scalar_type()).contiguous();
  return grad;
}

}  // namespace halcyon::film_detail
