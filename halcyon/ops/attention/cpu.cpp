// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ceil_div.h>

#include <algorithm>
#include <type_traits>

#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/attention/cpu_kernel.h"
#include "halcyon/ops/cpu_bf16.h"
#include "halcyon/ops/dense_rows.h"

namespace halcyon::attention_detail {
namespace {

// The backward has shares to be taken by threads: key heads, and below so many of them parts of
// their keys, though none of fewer keys. They depend on the problem alone, so that sums do.
constexpr int64_t kShares = 16, kLeastKeys = 1024;

// A tensor (B, N, heads, d), or (B, N, heads), as rows of heads.
template <class S>
class Heads {
 public:
  explicit Heads(const at::Tensor& t) {
    if (!t.defined()) return;
    if constexpr (std::is_const_v<S>) {
      data_ = static_cast<S*>(t.const_data_ptr());
    } else {
      data_ = static_cast<S*>(t.mutable_data_ptr());
    }
    sample_ = t.stride(0);
    row_ = t.stride(1);
    head_ = t.stride(2);
  }
  Rows<S> of(int64_t sample, int64_t head) const {
    return {data_ ? data_ + sample * sample_ + head * head_ : nullptr, row_, head_};
  }

 private:
  S* data_ = nullptr;
  int64_t sample_ = 0, row_ = 0, head_ = 0;
};

template <class F>
void with_kernels(at::ScalarType storage, CpuLevel level, bool pairs, const F& f) {
  const auto table = at_level(level, kernels_default, kernels_avx2, kernels_avx512)();
  if (storage == at::kDouble) return f(table.f64);
  if (storage == at::kFloat) return f(table.f32);
  f(pairs ? *kernels_avx512_bf16() : table.bf16);
}

template <class S, class T>
class Call {
 public:
  Call(const Inputs& in, const Kernels<S, T>& kernels)
      : kernels_(kernels),
        samples_(in.query.size(0)),
        queries_(in.query.size(1)),
        heads_(in.query.size(2)),
        groups_(in.key.size(2)),
        shared_(heads_ / groups_),
        wide_(kernels.padded_width(in.query.size(3))),
        query_tensor_(with_dense_rows(in.query)),
        key_tensor_(with_dense_rows(in.key)),
        value_tensor_(with_dense_rows(in.value)),
        query_weight_(wide_weight(in.query_weight, in)),
        key_weight_(wide_weight(in.key_weight, in)),
        query_(query_tensor_),
        key_(key_tensor_),
        value_(value_tensor_),
        problem_{queries_,
                 in.key.size(1),
                 in.query.size(3),
                 static_cast<T>(in.scale),
                 in.causal,
                 weight_data(query_weight_),
                 weight_data(key_weight_),
                 static_cast<T>(in.eps)} {}

  void forward(const Output& output) const {
    const Heads<S> out(output.out);
    const Heads<T> lse(output.lse);
    const int64_t blocks = at::ceil_div(queries_, kQueryBlock);
    at::parallel_for(0, samples_ * heads_ * blocks, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = numbers({kernels_.forward_scratch(problem_)});
      int64_t packed = -1;  // the key head in scratch
      for (int64_t i = begin; i < end; ++i) {
        const int64_t head = i / blocks % heads_, sample = i / blocks / heads_,
                      first = i % blocks * kQueryBlock, group = sample * groups_ + head / shared_;
        T* const memory = scratch.template mutable_data_ptr<T>();
        if (group != packed)
          kernels_.pack(problem_, key_.of(sample, head / shared_),
                        value_.of(sample, head / shared_), memory);
        packed = group;
        const auto from = [first](auto rows) {
          rows.data += first * rows.row;
          return rows;
        };
        kernels_.attend(problem_, first, std::min(kQueryBlock, queries_ - first),
                        from(query_.of(sample, head)), from(out.of(sample, head)),
                        from(lse.of(sample, head)), memory);
      }
    });
  }

  void backward(const Output& output, const at::Tensor& grad_out, const at::Tensor& grad_lse,
                const Gradients& into) const {
    const auto grad = with_dense_rows(grad_out);
    const Heads<const S> out(output.out), grad_of_out(grad);
    const Heads<const T> lse(output.lse), grad_of_lse(grad_lse);
    const Heads<S> grad_query(into.query), grad_key(into.key), grad_value(into.value);
    const int64_t keys = problem_.keys, key_heads = samples_ * groups_,
                  parts = std::clamp<int64_t>(at::ceil_div(kShares, key_heads), 1,
                                              at::ceil_div(keys, kLeastKeys)),
                  length = at::ceil_div(at::ceil_div(keys, parts), kKeyBlock) * kKeyBlock,
                  head_sums = queries_ * wide_, apart = samples_ * heads_ * head_sums;
    const auto add_query_weight = weight_sums(samples_ * heads_, query_weight_),
               add_key_weight = weight_sums(key_heads * parts, key_weight_);
    // shares of several parts meet here; one part's stay with its thread
    const auto sums = parts > 1 ? numbers({parts * apart}) : at::Tensor();
    const auto finish = [&](int64_t sample, int64_t head, const T* from, T* memory) {
      kernels_.finish_queries(problem_, parts, apart, from, query_.of(sample, head),
                              grad_query.of(sample, head),
                              slot(add_query_weight, sample * heads_ + head), memory);
    };
    at::parallel_for(0, key_heads * parts, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = numbers({kernels_.backward_scratch(problem_, std::min(length, keys))});
      const auto own = parts > 1 ? at::Tensor() : numbers({shared_ * head_sums});
      T* const memory = scratch.template mutable_data_ptr<T>();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % parts, sample = i / parts / groups_, group = i / parts % groups_,
                      first = part * length, head = group * shared_;
        T* const to = parts > 1 ? sums.template mutable_data_ptr<T>() + part * apart +
                                      (sample * heads_ + head) * head_sums
                                : own.template mutable_data_ptr<T>();
        const Share<S, T> share{shared_,
                                first,
                                std::clamp<int64_t>(keys - first, 0, length),
                                query_.of(sample, head),
                                out.of(sample, head),
                                grad_of_out.of(sample, head),
                                key_.of(sample, group),
                                value_.of(sample, group),
                                lse.of(sample, head),
                                grad_of_lse.of(sample, head),
                                to,
                                grad_key.of(sample, group),
                                grad_value.of(sample, group),
                                slot(add_key_weight, i)};
        kernels_.backward(problem_, share, memory);
        if (parts > 1) continue;
        for (int64_t h = 0; h < shared_; ++h) finish(sample, head + h, to + h * head_sums, memory);
      }
    });
    if (parts > 1) {
      at::parallel_for(0, samples_ * heads_, 1, [&](int64_t begin, int64_t end) {
        const auto scratch = numbers({2 * wide_});
        for (int64_t i = begin; i < end; ++i)
          finish(i / heads_, i % heads_, sums.template const_data_ptr<T>() + i * head_sums,
                 scratch.template mutable_data_ptr<T>());
      });
    }
    add_up(add_query_weight, into.query_weight);
    add_up(add_key_weight, into.key_weight);
  }

 private:
  static at::Tensor numbers(at::IntArrayRef shape) {
    return at::empty(shape, at::dtype(c10::CppTypeToScalarType<T>::value));
  }
  static const T* weight_data(const at::Tensor& t) {
    return t.defined() ? t.const_data_ptr<T>() : nullptr;
  }
  at::Tensor wide_weight(const at::Tensor& weight, const Inputs& in) const {
    if (!weight.defined()) return {};
    const auto wide = numbers({wide_}).zero_();
    wide.narrow(0, 0, weight.size(0)).copy_(weight.to(in.accumulate()));
    return wide;
  }
  at::Tensor weight_sums(int64_t slots, const at::Tensor& weight) const {
    return weight.defined() ? numbers({slots, wide_}).zero_() : at::Tensor();
  }
  T* slot(const at::Tensor& sums, int64_t i) const {
    return sums.defined() ? sums.mutable_data_ptr<T>() + i * wide_ : nullptr;
  }
  static void add_up(const at::Tensor& sums, const at::Tensor& into) {
    if (into.defined()) into.copy_(sums.sum(0).narrow(0, 0, into.size(0)));
  }

  const Kernels<S, T>& kernels_;
  int64_t samples_, queries_, heads_, groups_, shared_, wide_;
  at::Tensor query_tensor_, key_tensor_, value_tensor_, query_weight_, key_weight_;
  Heads<const S> query_, key_, value_;
  Problem<T> problem_;
};

}  // namespace

bool has_pairs(CpuLevel level) {
  return level == CpuLevel::avx512 && has_fast_bf16_pairs() && kernels_avx512_bf16() != nullptr;
}

Output forward_cpu(const Inputs& in, CpuLevel level, bool pairs) {
  auto shape = in.query.sizes().vec();
  const auto out = at::empty(shape, in.query.options());
  shape.pop_back();
  const Output output{out, at::empty(shape, in.query.options().dtype(in.accumulate()))};
  with_kernels(in.query.scalar_type(), level, pairs,
               [&](const auto& kernels) { Call(in, kernels).forward(output); });
  return output;
}

void backward_cpu(const Inputs& in, const Output& output, const at::Tensor& grad_out,
                  const at::Tensor& grad_lse, const Gradients& into, CpuLevel level, bool pairs) {
  with_kernels(in.query.scalar_type(), level, pairs, [&](const auto& kernels) {
    Call(in, kernels).backward(output, grad_out, grad_lse, into);
  });
}

}  // namespace halcyon::attention_detail
