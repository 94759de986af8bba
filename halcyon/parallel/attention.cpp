// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/attention.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <optional>
#include <utility>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/ops/kept.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/attention_block.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/parallel/index_transfer.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/sharded_operands.h"
#include "halcyon/parallel/tags.h"
#include "halcyon/parallel/window.h"

namespace halcyon::parallel {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kName = "scaled_dot_product_attention";
constexpr int64_t kTokens = 2;  // the sharded axis

struct Problem {
  Group group;
  int64_t tag = 0;
  std::vector<int64_t> query_starts, key_starts;
  double scale = 1;
  bool causal = false;

  int64_t keys_of(int64_t rank) const { return key_starts[rank + 1] - key_starts[rank]; }
};

at::Tensor wide(const at::Tensor& t) {
  return t.to(t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

// Keys and values of one rank, or their gradients.
struct Block {
  at::Tensor key, value;
};

// Who has which rank's block at which step: a block moves to the next rank with every step.
class Ring {
 public:
  explicit Ring(const Problem& problem)
      : problem_(problem), me_(problem.group.rank()), size_(problem.group.size()) {}

  int64_t steps() const { return size_; }
  int64_t next() const { return (me_ + 1) % size_; }
  int64_t previous() const { return (me_ + size_ - 1) % size_; }
  // The rank whose block is here at this step.
  int64_t owner(int64_t step) const { return (me_ + size_ - step) % size_; }
  // With causality no query sees the keys of later ranks: a block goes no further than the last.
  bool comes(int64_t step) const { return !problem_.causal || step <= me_; }
  bool goes_on(int64_t step) const {
    return comes(step) && step + 1 < size_ && (!problem_.causal || me_ + 1 < size_);
  }

  // f(step, block of the owner) of every block that comes, with the next one under way.
  template <class F>
  void each(const Block& own, int64_t tag, const F& f) const {
    auto block = own;
    for (int64_t step = 0; step < steps(); ++step) {
      Exchange exchange(problem_.group, kName, tag);
      Block coming;
      if (step + 1 < steps() && comes(step + 1)) {
        coming = empty_block(own, owner(step + 1));
        exchange.receive(previous(), coming.key);
        exchange.receive(previous(), coming.value);
      }
      if (goes_on(step)) {
        exchange.send(next(), block.key);
        exchange.send(next(), block.value);
      }
      exchange.post();
      f(step, block);
      exchange.wait();
      block = std::move(coming);
    }
  }

  Block empty_block(const Block& like, int64_t owner) const {
    const auto made = [&](const at::Tensor& t) {
      auto sizes = t.sizes().vec();
      sizes[kTokens] = problem_.keys_of(owner);
      return at::empty(sizes, t.options());
    };
    return {made(like.key), made(like.value)};
  }

 private:
  const Problem& problem_;
  int64_t me_, size_;
};

bool is_needed(const at::Tensor& query, const Block& block) {
  return block.key.defined() && query.numel() > 0 && block.key.numel() > 0;
}

BlockOutput forward_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                       const Problem& problem) {
  const auto q = wide(query);
  BlockOutput result;
  Ring(problem).each({key.contiguous(), value.contiguous()}, problem.tag,
                     [&](int64_t step, const Block& block) {
                       if (!is_needed(q, block)) return;
                       merge(result, attend_block(q, wide(block.key), wide(block.value),
                                                  problem.scale, problem.causal && step == 0));
                     });
  if (!result.out.defined()) {
    auto sizes = q.sizes().vec();
    sizes.back() = value.size(-1);
    result.out = at::zeros(sizes, q.options());
    sizes.pop_back();
    result.lse = at::full(sizes, -std::numeric_limits<double>::infinity(), q.options());
  }
  return result;
}

// The gradients of a block follow it round the ring, one step behind, and end at its owner.
BlockGradients backward_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const BlockOutput& output, const at::Tensor& grad_out,
                           const Problem& problem) {
  const Ring ring(problem);
  const auto q = wide(query), grad = wide(grad_out);
  auto grad_query = at::zeros(q.sizes(), q.options());
  const Block own{key.contiguous(), value.contiguous()};
  const Block own_wide{wide(own.key), wide(own.value)};
  Block sums, coming;
  std::optional<Exchange> moving;
  ring.each(own, problem.tag + kAdjoint, [&](int64_t step, const Block& block) {
    BlockGradients part;
    if (is_needed(q, block)) {
      part = block_gradients(q, wide(block.key), wide(block.value), output, grad, problem.scale,
                             problem.causal && step == 0);
      grad_query.add_(part.query);
    }
    if (moving) {
      moving->wait();
      sums = std::move(coming);
    } else {
      sums = ring.empty_block(own_wide, ring.owner(0));
      sums.key.zero_(), sums.value.zero_();
    }
    if (part.key.defined()) sums.key.add_(part.key), sums.value.add_(part.value);
    if (ring.steps() == 1) return;
    coming = ring.empty_block(own_wide, ring.owner((step + 1) % ring.steps()));
    moving.emplace(problem.group, std::string(kName) + " backward", problem.tag);
    moving->receive(ring.previous(), coming.key);
    moving->receive(ring.previous(), coming.value);
    moving->send(ring.next(), sums.key);
    moving->send(ring.next(), sums.value);
    moving->post();
  });
  if (moving) {
    moving->wait();
    sums = std::move(coming);
  }
  const auto type = query.scalar_type();
  return {grad_query.to(type), sums.key.to(type), sums.value.to(type)};
}

// The same of operations that autograd differentiates.
BlockGradients differentiable_backward(const at::Tensor& query, const at::Tensor& key,
                                       const at::Tensor& value, const at::Tensor& grad_out,
                                       const Problem& problem) {
  const auto whole = whole_transfer(std::string(kName) + " backward", problem.group, problem.tag,
                                    kTokens, problem.key_starts, key.device());
  const auto kv = move_indexed(at::cat({wide(key), wide(value)}, -1), whole);
  const auto channels = key.size(-1);
  const auto all = gradients_by_operators(
      wide(query), kv.narrow(-1, 0, channels), kv.narrow(-1, channels, value.size(-1)),
      wide(grad_out), problem.scale, problem.causal, problem.query_starts[problem.group.rank()]);
  const auto own = move_indexed_back(at::cat({all.key, all.value}, -1), whole);
  const auto type = query.scalar_type();
  return {all.query.to(type), own.narrow(-1, 0, channels).to(type),
          own.narrow(-1, channels, value.size(-1)).to(type)};
}

struct RingAttention : torch::autograd::Function<RingAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value,
                            const std::shared_ptr<const Problem>& problem) {
    const auto output = forward_of(query, key, value, *problem);
    // of half precision the wide result is kept: the backward's delta is exact then
    ctx->save_for_backward({query, key, value});
    Kept<State>::keep(*ctx, std::make_shared<const State>(State{problem, output}));
    const auto out = output.out.to(query.scalar_type());
    return out.is_same(output.out) ? out.clone() : out;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const auto saved = ctx->get_saved_variables();
    const auto kept = Kept<State>::of(*ctx);
    const auto grad =
        at::GradMode::is_enabled()
            ? differentiable_backward(saved[0], saved[1], saved[2], grads[0], *kept->problem)
            : backward_of(saved[0], saved[1], saved[2], kept->output, grads[0], *kept->problem);
    return {grad.query, grad.key, grad.value, {}};
  }

 private:
  struct State {
    std::shared_ptr<const Problem> problem;
    BlockOutput output;
  };
};

void check_operands(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    bool causal) {
  for (const auto& [name, t] : {std::pair("query", query), {"key", key}, {"value", value}}) {
    HALCYON_CHECK(t.defined() && t.dim() == 4 && at::isFloatingType(t.scalar_type()), kName,
                  "expected {} of shape (B, heads, S, d) and a floating type, got {}", name,
                  describe(t));
    HALCYON_CHECK(t.scalar_type() == query.scalar_type() && t.device() == query.device(), kName,
                  "expected {} in the dtype and on the device of query, got {} and {}", name,
                  describe(t), describe(query));
    HALCYON_CHECK(t.size(0) == query.size(0) && t.size(1) > 0 && t.size(3) > 0, kName,
                  "expected {} with query's batch, heads and channels, got {} and {}", name,
                  describe(t), describe(query));
  }
  HALCYON_CHECK(key.size(3) == query.size(3), kName, "expected key with {} channels, got {}",
                query.size(3), key.size(3));
  HALCYON_CHECK(query.size(1) % key.size(1) == 0, kName,
                "expected key heads that divide the {} of query, got {}", query.size(1),
                key.size(1));
  HALCYON_CHECK(value.size(1) == key.size(1) && value.size(2) == key.size(2), kName,
                "expected value with key's heads and tokens, got {} and {}", describe(value),
                describe(key));
  HALCYON_CHECK(!causal || key.size(2) == query.size(2), kName,
                "expected, with causality, as many keys as queries on every rank, got {} and {}",
                key.size(2), query.size(2));
}

}  // namespace

at::Tensor scaled_dot_product_attention(const at::Tensor& given_query, const at::Tensor& given_key,
                                        const at::Tensor& given_value, bool is_causal,
                                        std::optional<double> scale, int64_t dim,
                                        const Group& group) {
  const auto cast = [](const at::Tensor& t) { return t.defined() ? as_autocast(t) : t; };
  const auto query = cast(given_query), key = cast(given_key), value = cast(given_value);
  Agreement agreement(group, kName);
  auto problem = std::make_shared<Problem>();
  size_t queries_at = 0, keys_at = 0, grad_at = 0;
  agreement.prepare([&] {
    check_operands(query, key, value, is_causal);
    HALCYON_CHECK(dim == kTokens || dim == kTokens - 4, kName,
                  "expected dim as the axis of the tokens, -2, got {}", dim);
    problem->scale = scale.value_or(std::pow(static_cast<double>(query.size(3)), -0.5));
    HALCYON_CHECK(std::isfinite(problem->scale), kName, "expected a finite scale, got {}",
                  problem->scale);
    agreement.same_but("query", query, kTokens);
    agreement.same_but("key", key, kTokens);
    agreement.same_but("value", value, kTokens);
    agreement.same("is_causal", int64_t{is_causal});
    agreement.same("scale", problem->scale);
    queries_at = agreement.each(query.size(kTokens));
    keys_at = agreement.each(key.size(kTokens));
    grad_at = agreement.each(query.requires_grad() || key.requires_grad() || value.requires_grad());
  });
  agreement.post();
  agreement.finish();
  problem->group = group;
  problem->tag = agreement.tag();
  problem->causal = is_causal;
  problem->query_starts = starts_of(agreement.of_all(queries_at));
  problem->key_starts = starts_of(agreement.of_all(keys_at));
  const auto any_grad = agreement.any(grad_at);
  const auto joined = [&](const at::Tensor& t) { return joined_to_backward(t, any_grad); };
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return RingAttention::apply(joined(query), joined(key), joined(value),
                              std::shared_ptr<const Problem>(problem));
}

}  // namespace halcyon::parallel
