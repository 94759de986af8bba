// SPDX-License-Identifier: Apache-2.0
// Matrix products of blocks of queries with the box of their keys, what lies outside the windows
// masked: more arithmetic than the tiles of tiled_*.cpp, all of it in the library's products.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "halcyon/ops/finite.h"
#include "halcyon/ops/hidden.h"
#include "halcyon/ops/neighborhood/backends.h"
#include "halcyon/ops/neighborhood/plan.h"
#include "halcyon/ops/pieces.h"

namespace halcyon::neighborhood {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Targets of one product by the number of axes: what wastes little of windows of 5 to 21.
constexpr std::array<std::array<int64_t, kMaxAxes>, kMaxAxes> kExtent{
    {{1, 1, 64}, {1, 8, 8}, {4, 4, 8}}};

// Targets and sources of one product.
struct Block {
  at::Tensor targets, sources;  // token numbers, int64
  at::Tensor outside;           // (targets, sources), bool
  at::Tensor relative;          // (targets, sources), index into the bias table; where not outside
};

class Blocks {
 public:
  Blocks(const std::vector<Axis>& axes, Plan::Targets targets)
      : axes_(three_axes(axes)), plan_(axes_, targets, kExtent[axes.size() - 1]) {}

  int64_t size() const { return static_cast<int64_t>(plan_.items().size()); }

  Block operator[](int64_t i) const {
    const Item& item = plan_.items()[static_cast<std::size_t>(i)];
    Block block;
    auto inside = at::ones({1, 1}, at::kBool);
    block.targets = block.sources = at::zeros({1}, at::kLong);
    block.relative = at::zeros({1, 1}, at::kLong);
    const int64_t sign = plan_.targets() == Plan::queries ? 1 : -1;
    for (std::size_t a = 0; a < kMaxAxes; ++a) {
      const auto &to = item.target[a], &from = item.source[a];
      const auto target = at::arange(to.begin, to.end), source = at::arange(from.begin, from.end);
      auto start = at::empty({to.size()}, at::kLong), end = at::empty({to.size()}, at::kLong);
      for (int64_t t = 0; t < to.size(); ++t) {
        const Span span = (*item.band[a])[static_cast<std::size_t>(to.begin + t)];
        start.mutable_data_ptr<int64_t>()[t] = span.start;
        end.mutable_data_ptr<int64_t>()[t] = span.start + span.count;
      }
      const auto token = [&](const at::Tensor& position) {
        return at::remainder(position, item.size[a]) * axes_[a].dilation + item.residue[a];
      };
      const auto within = at::logical_and(source >= start.unsqueeze(1), source < end.unsqueeze(1));
      const auto offset = (source - target.unsqueeze(1)) * sign + axes_[a].kernel - 1;
      block.targets = join(block.targets, token(target), axes_[a].length);
      block.sources = join(block.sources, token(source), axes_[a].length);
      inside = pairs(inside, within, [](const auto& x, const auto& y) { return x.logical_and(y); });
      const int64_t width = 2 * axes_[a].kernel - 1;
      block.relative = pairs(block.relative, offset,
                             [&](const auto& x, const auto& y) { return x * width + y; });
    }
    block.outside = inside.logical_not();
    return block;
  }

 private:
  static at::Tensor join(const at::Tensor& outer, const at::Tensor& inner, int64_t length) {
    return (outer.unsqueeze(1) * length + inner).flatten();
  }
  template <class F>
  static at::Tensor pairs(const at::Tensor& outer, const at::Tensor& inner, const F& f) {
    return f(outer.unsqueeze(1).unsqueeze(3), inner.unsqueeze(1).unsqueeze(0))
        .reshape({outer.size(0) * inner.size(0), outer.size(1) * inner.size(1)});
  }

  Axes axes_;
  Plan plan_;
};

// Operands as (B, G, H / G, T, c), computed in accumulate(); keys have one row of heads.
class Operands {
 public:
  explicit Operands(const Inputs& in)
      : type_(in.accumulate()),
        groups_(in.key.size(-2)),
        query(rows(in.query) * in.scale),
        key(rows(in.key)),
        value(rows(in.value)) {
    if (in.bias)
      bias = in.bias->to(type_).flatten(1).unflatten(0, {groups_, in.query.size(-2) / groups_});
  }

  at::Tensor rows(const at::Tensor& t) const {
    const auto flat = t.to(type_).flatten(1, -3);
    return flat.unflatten(2, {groups_, flat.size(2) / groups_})
        .permute({0, 2, 3, 1, 4})
        .contiguous();
  }
  // (B, G, H / G, T, c) in the layout of like, (B, *, H, c).
  static at::Tensor tokens(const at::Tensor& rows, at::IntArrayRef shape) {
    return rows.permute({0, 3, 1, 2, 4}).reshape(shape);
  }

  // (B, G, H / G, queries, keys) of a block whose targets are queries.
  at::Tensor scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& outside,
                    const at::Tensor& relative) const {
    auto s = at::matmul(q, k.transpose(-1, -2));
    if (bias.defined()) {
      const auto index = relative.masked_fill(outside, 0).flatten();
      s = s + bias.index_select(2, index).unflatten(2, relative.sizes());
    }
    return s.masked_fill_(outside, -kInfinity);
  }

 private:
  at::ScalarType type_;
  int64_t groups_;

 public:
  at::Tensor query, key, value, bias;
};

template <class F>
void each_block(const Blocks& blocks, const F& f) {
  each_piece(blocks.size(), [&](int64_t i) {
    const at::AutoDispatchBelowADInplaceOrView below;
    f(i, blocks[i]);
  });
}

at::Tensor at_tokens(const at::Tensor& rows, const at::Tensor& index) {
  return rows.index_select(3, index);
}

}  // namespace

Output forward_gemm(const Inputs& in) {
  const Operands x(in);
  auto shape = x.query.sizes().vec();
  shape.back() = in.value.size(-1);
  auto out = at::empty(shape, x.query.options());
  shape.back() = 1;
  auto lse = at::empty(shape, x.query.options());
  const bool finite = all_finite(in.value);
  each_block(Blocks(in.axes, Plan::queries), [&](int64_t, const Block& b) {
    const auto s =
        x.scores(at_tokens(x.query, b.targets), at_tokens(x.key, b.sources), b.outside, b.relative);
    const auto sum = at::logsumexp(s, -1, true);
    const auto p = (s - sum).exp_();
    out.index_copy_(3, b.targets, seen_matmul(p, at_tokens(x.value, b.sources), b.outside, finite));
    lse.index_copy_(3, b.targets, sum);
  });
  auto like = in.query.sizes().vec();
  like.back() = in.value.size(-1);
  auto result = Operands::tokens(out, like).to(in.query.scalar_type());
  like.pop_back();
  return {std::move(result), Operands::tokens(lse, like)};
}

Gradients backward_gemm(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                        const at::Tensor& delta) {
  const Operands x(in);
  const auto grad_rows = x.rows(grad_out), lse_rows = x.rows(lse.unsqueeze(-1)),
             delta_rows = x.rows(delta.unsqueeze(-1));
  auto grad_query = at::empty_like(x.query), grad_key = at::empty_like(x.key),
       grad_value = at::empty_like(x.value);
  const bool finite_query = all_finite(in.query), finite_key = all_finite(in.key),
             finite_grad = all_finite(grad_out);
  // weights and their gradients, (.., queries, keys), 0 outside the windows
  const auto weights = [&](const at::Tensor& queries, const at::Tensor& keys,
                           const at::Tensor& outside, const at::Tensor& relative) {
    const auto p =
        (x.scores(at_tokens(x.query, queries), at_tokens(x.key, keys), outside, relative) -
         at_tokens(lse_rows, queries))
            .exp_()
            .masked_fill_(outside, 0);
    const auto dp =
        at::matmul(at_tokens(grad_rows, queries), at_tokens(x.value, keys).transpose(-1, -2));
    return std::pair(p, (p * (dp - at_tokens(delta_rows, queries))).masked_fill_(outside, 0));
  };

  const Blocks by_query(in.axes, Plan::queries);
  std::vector<at::Tensor> tables(static_cast<std::size_t>(by_query.size()));
  each_block(by_query, [&](int64_t i, const Block& b) {
    const auto ds = weights(b.targets, b.sources, b.outside, b.relative).second;
    const auto key = at_tokens(x.key, b.sources);
    grad_query.index_copy_(3, b.targets, seen_matmul(ds, key, b.outside, finite_key) * in.scale);
    if (x.bias.defined()) {
      const auto index = b.relative.masked_fill(b.outside, 0).flatten();
      tables[static_cast<std::size_t>(i)] =
          at::zeros_like(x.bias).index_add_(2, index, ds.sum(0).flatten(2));
    }
  });
  each_block(Blocks(in.axes, Plan::keys), [&](int64_t, const Block& b) {
    const auto [p, ds] = weights(b.sources, b.targets, b.outside.t(), b.relative.t());
    const auto of_keys = [&](const at::Tensor& w, const at::Tensor& rows, bool finite) {
      return seen_matmul(w.transpose(-1, -2), at_tokens(rows, b.sources), b.outside, finite)
          .sum(2, true);
    };
    grad_key.index_copy_(3, b.targets, of_keys(ds, x.query, finite_query));
    grad_value.index_copy_(3, b.targets, of_keys(p, grad_rows, finite_grad));
  });

  const auto type = in.query.scalar_type();
  Gradients grad;
  grad.query = Operands::tokens(grad_query, in.query.sizes()).to(type);
  grad.key = Operands::tokens(grad_key, in.key.sizes()).to(type);
  grad.value = Operands::tokens(grad_value, in.value.sizes()).to(type);
  if (in.bias) {
    auto sum = at::zeros_like(x.bias);
    for (const auto& table : tables) sum += table;
    grad.bias = sum.view(in.bias->sizes()).to(in.bias->scalar_type());
  }
  return grad;
}

}  // namespace halcyon::neighborhood
