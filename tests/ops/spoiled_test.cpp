// SPDX-License-Identifier: Apache-2.0
// Numbers that are not finite, where a query does not see them.
#include "tests/ops/spoiled.h"

#include <torch/csrc/autograd/autograd.h>

#include <random>

#include "halcyon/ops/attention/attention.h"
#include "halcyon/ops/attention/backends.h"
#include "halcyon/ops/finite.h"
#include "halcyon/ops/neighborhood/neighborhood.h"
#include "halcyon/ops/neighborhood/slots.h"
#include "halcyon/ops/neighborhood/sphere/part_attention.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "halcyon/ops/neighborhood/sphere/sphere_attention.h"
#include "halcyon/ops/temporal/backends.h"
#include "tests/ops/neighborhood_case.h"
#include "tests/ops/ops_test.h"

namespace halcyon {
namespace {

using test::AttentionResult;
using test::AttentionTensors;
using test::expect_hidden_changes_nothing;
using test::levels;

constexpr at::ScalarType kTypes[]{at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

AttentionTensors draw(int64_t queries, int64_t keys, int64_t heads, int64_t groups, int64_t width,
                      at::ScalarType type) {
  const auto tokens = [&](int64_t n, int64_t h) {
    return at::randn({2, n, h, width}, at::kDouble).to(type);
  };
  return {tokens(queries, heads), tokens(keys, groups), tokens(keys, groups),
          tokens(queries, heads)};
}

// f(query, key, value), by autograd.
template <class F>
AttentionResult differentiated(const AttentionTensors& in, const F& f) {
  const auto leaf = [](const at::Tensor& t) { return t.detach().clone().requires_grad_(); };
  const auto q = leaf(in.query), k = leaf(in.key), v = leaf(in.value);
  const at::Tensor out = f(q, k, v);
  const auto grads = torch::autograd::grad({out}, {q, k, v}, {in.grad_out});
  return {out.detach(), grads[0], grads[1], grads[2]};
}

// Neighborhood attention of a drawn problem: (B, *, H, c) and (B, T, H, c).
class Windows {
 public:
  Windows(const test::NeighborhoodCase& c, at::ScalarType type)
      : in_(c.in),
        tensors_{flat(c.in.query.to(type)), flat(c.in.key.to(type)), flat(c.in.value.to(type)),
                 flat(c.grad_out.to(type))} {
    const auto slots = neighborhood::make_slots(in_.axes);
    const int64_t tokens = slots.key.size(0);
    seen_ = at::zeros({tokens, tokens}, at::kLong)
                .scatter_add_(1, slots.key, slots.used.to(at::kLong))
                .to(at::kBool);
    if (in_.bias) in_.bias = in_.bias->to(type);
    for (const auto& axis : in_.axes) lengths_.push_back(axis.length);
  }

  const AttentionTensors& tensors() const { return tensors_; }
  const at::Tensor& seen() const { return seen_; }
  neighborhood::Inputs inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    auto in = in_;
    in.query = on_axes(q);
    in.key = on_axes(k);
    in.value = on_axes(v);
    return in;
  }
  at::Tensor on_axes(const at::Tensor& t) const { return t.unflatten(1, lengths_); }
  static at::Tensor flat(const at::Tensor& t) { return t.flatten(1, -3).contiguous(); }

  // forward(Inputs) and backward(Inputs, Output, grad_out) of a backend.
  template <class Forward, class Backward>
  AttentionResult run(const AttentionTensors& t, const Forward& forward,
                      const Backward& backward) const {
    const auto in = inputs(t.query, t.key, t.value);
    const auto grad_out = on_axes(t.grad_out);
    const neighborhood::Output output = forward(in);
    const neighborhood::Gradients grad = backward(in, output, grad_out);
    return {flat(output.out), flat(grad.query), flat(grad.key), flat(grad.value)};
  }

 private:
  neighborhood::Inputs in_;
  AttentionTensors tensors_;
  at::Tensor seen_;
  std::vector<int64_t> lengths_;
};

// The first and the last token, and one between.
std::vector<std::vector<int64_t>> places_of(int64_t tokens, uint32_t seed) {
  return {{0}, {tokens - 1}, {static_cast<int64_t>(seed) % tokens}};
}

void check_windows(const test::NeighborhoodCase& c, at::ScalarType type, uint32_t seed) {
  using neighborhood::Inputs;
  using neighborhood::Output;
  const Windows windows(c, type);
  const bool wide = type != at::kHalf;  // which its kernels do not have
  for (const auto& places : places_of(windows.seen().size(0), seed)) {
    const auto expect = [&](const std::string& backend, const auto& run) {
      expect_hidden_changes_nothing(
          fmt::format("{} {} {} place {}", c.text, backend, c10::toString(type), places[0]),
          windows.seen(), places, windows.tensors(), run);
    };
    for (const auto level : levels()) {
      expect(fmt::format("tiled {}", static_cast<int>(level)), [&](const AttentionTensors& t) {
        return windows.run(
            t, [&](const Inputs& in) { return neighborhood::forward_tiled(in, level); },
            [&](const Inputs& in, const Output& out, const at::Tensor& grad) {
              return neighborhood::backward_tiled(in, out.lse, grad,
                                                  neighborhood::delta_of(out, grad, {}), level);
            });
      });
    }
    expect("gemm", [&](const AttentionTensors& t) {
      return windows.run(t, neighborhood::forward_gemm,
                         [&](const Inputs& in, const Output& out, const at::Tensor& grad) {
                           return neighborhood::backward_gemm(
                               in, out.lse, grad, neighborhood::delta_of(out, grad, {}));
                         });
    });
    expect("reference", [&](const AttentionTensors& t) {
      return windows.run(t, neighborhood::reference,
                         [&](const Inputs& in, const Output&, const at::Tensor& grad) {
                           return neighborhood::reference_gradients(in, grad, {});
                         });
    });
    if (!neighborhood::is_plain(windows.inputs(windows.tensors().query, windows.tensors().key,
                                               windows.tensors().value)))
      continue;
    if (wide) {
      expect("plain", [&](const AttentionTensors& t) {
        return windows.run(t, neighborhood::forward_plain,
                           [&](const Inputs& in, const Output& out, const at::Tensor& grad) {
                             return neighborhood::backward_plain(in, out, grad, {});
                           });
      });
    }
    expect("composed", [&](const AttentionTensors& t) {
      return differentiated(t, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return Windows::flat(neighborhood::compose_plain(windows.inputs(q, k, v)).out);
      });
    });
  }
}

TEST(Spoiled, WindowsOfEveryBackend) {
  for (uint32_t seed = 100; seed < 124; ++seed) {
    const std::vector<int64_t> longest = seed % 3 == 0   ? std::vector<int64_t>{40}
                                         : seed % 3 == 1 ? std::vector<int64_t>{9, 20}
                                                         : std::vector<int64_t>{4, 5, 6};
    const auto c = test::random_case(seed, {longest, true, 6});
    check_windows(c, kTypes[seed / 3 % 4], seed);
    if (HasFailure()) return;
  }
}

// Unused slots of the reference must not look at the first token.
TEST(Spoiled, CausalDilatedWindowsOfEveryBackend) {
  for (const auto type : kTypes) {
    auto c = test::random_case(7, {{24}, false, 1});
    c.in.axes = {{24, 4, 3, 1, true, false}};
    for (auto* t : {&c.in.query, &c.in.key, &c.in.value, &c.grad_out})
      *t = at::randn({2, 24, 2, 8}, at::kDouble);
    check_windows(c, type, 10);
  }
}

TEST(Spoiled, WindowsThatCoverTheAxis) {
  for (const auto type : kTypes) {
    for (const int64_t length : {5, 60}) {
      auto c = test::random_case(8, {{1}, false, 1});
      c.in.axes = {{length, length, 1, 1, true, false}};
      for (auto* t : {&c.in.query, &c.in.key, &c.in.value, &c.grad_out})
        *t = at::randn({2, length, 2, 9}, at::kDouble);
      check_windows(c, type, 13);
    }
  }
}

at::Tensor causal(int64_t queries, int64_t keys) {
  return at::ones({queries, keys}, at::kBool).tril();
}

// Blocks of 192 queries and 256 keys, whole and in part, and pairs of bfloat16 halfway.
TEST(Spoiled, BlocksOfCausalAttention) {
  using attention_detail::Inputs;
  at::manual_seed(5);
  for (const auto& [tokens, groups, width] :
       {std::tuple<int64_t, int64_t, int64_t>{33, 2, 8}, {300, 1, 17}}) {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
      const auto t = draw(tokens, tokens, 2, groups, width, type);
      for (const auto level : levels()) {
        for (const bool pairs : {false, true}) {
          if (pairs && (level != CpuLevel::avx512 || !attention_detail::has_pairs())) continue;
          for (const std::vector<int64_t>& places : {std::vector<int64_t>{tokens - 1},
                                                     {tokens / 2},
                                                     {0},
                                                     {tokens / 2 + 1, tokens - 2}}) {
            const auto text =
                fmt::format("{} tokens {} {} level {}{}", tokens, width, c10::toString(type),
                            static_cast<int>(level), pairs ? " pairs" : "");
            expect_hidden_changes_nothing(
                text, causal(tokens, tokens), places, t, [&](const AttentionTensors& a) {
                  const Inputs in{a.query, a.key, a.value, 0.3, true, {}, {}, 0};
                  const auto output = attention_detail::forward_cpu(in, level, pairs);
                  const auto like = [](const at::Tensor& x) { return at::empty_like(x); };
                  const attention_detail::Gradients into{
                      like(a.query), like(a.key), like(a.value), {}, {}};
                  attention_detail::backward_cpu(in, output, a.grad_out, {}, into, level, pairs);
                  return AttentionResult{output.out, into.query, into.key, into.value};
                });
          }
        }
      }
    }
  }
}

// Through torch's own attention: masks of either kind, and queries and keys of unlike lengths.
TEST(Spoiled, AttentionUnderAMask) {
  at::manual_seed(6);
  const int64_t queries = 30, keys = 30;
  const auto seen = at::rand({queries, keys}) < 0.3;
  seen.diagonal().fill_(true);
  const auto added = at::randn({queries, keys})
                         .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto t = draw(queries, keys, 2, 2, 8, type);
    for (const auto& mask : {seen, added}) {
      expect_hidden_changes_nothing(
          "mask", seen, {4, 20}, t,
          [&](const AttentionTensors& a) {
            return differentiated(
                a, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                  return attention_by_operators(q, k, v, mask, 0, false);
                });
          },
          1e-5);
    }
    expect_hidden_changes_nothing(
        "causal", causal(queries, keys), {25}, t,
        [&](const AttentionTensors& a) {
          return differentiated(a,
                                [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                                  return attention_by_operators(q, k, v, {}, 0, true);
                                });
        },
        1e-5);
  }
  AttentionOptions options;
  options.is_causal = true;
  for (const auto& [more, less] : {std::pair<int64_t, int64_t>{40, 25}, {25, 40}}) {
    expect_hidden_changes_nothing(
        "unlike lengths", causal(more, less), {20}, draw(more, less, 4, 2, 8, at::kFloat),
        [&](const AttentionTensors& a) {
          return differentiated(a,
                                [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                                  return attention(q, k, v, options).out;
                                });
        },
        1e-5);
  }
}

TEST(Spoiled, DisksAndRingsOfTheSphere) {
  at::manual_seed(7);
  const neighborhood::PixelWindow windows[]{
      {3, {}, 1, healpix::Order::nest, {}},
      {2, 35.0, {}, healpix::Order::pad_xy, {}},
      {3, 20.0, {}, healpix::Order::nest, at::randperm(768, at::kLong).slice(0, 0, 90)}};
  for (const auto& window : windows) {
    const auto lists = neighborhood::pixel_lists(window);
    const auto seen = neighborhood::seen_mask(*lists);
    const int64_t pixels = seen.size(0);
    for (const auto type : kTypes) {
      const auto t = draw(pixels, pixels, 2, 1, 9, type);
      const auto expect = [&](const std::string& text, double bound, const auto& run) {
        for (const std::vector<int64_t>& places :
             {std::vector<int64_t>{0}, {pixels - 1}, {pixels / 2, pixels / 3}})
          expect_hidden_changes_nothing(fmt::format("{} {}", text, c10::toString(type)), seen,
                                        places, t, run, bound);
      };
      for (const auto level : levels()) {
        expect(fmt::format("level {}", static_cast<int>(level)), 0, [&](const AttentionTensors& a) {
          const neighborhood::SphereInputs in{a.query, a.key, a.value, lists.get(), 0.4};
          const auto out = neighborhood::sphere_forward(in, level);
          const auto grad = neighborhood::sphere_backward(
              in, out.lse, a.grad_out, neighborhood::delta_of(out, a.grad_out, {}), level);
          return AttentionResult{out.out, grad.query, grad.key, grad.value};
        });
      }
      expect("reference", 0, [&](const AttentionTensors& a) {
        return differentiated(
            a, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
              return neighborhood::sphere_reference({q, k, v, lists.get(), 0.4}).out;
            });
      });
    }
  }
}

// Frames of every form, linear and with a softmax, causal with a window and without.
TEST(Spoiled, FramesThatAreHidden) {
  using temporal_detail::Form;
  at::manual_seed(8);
  for (const int64_t frames : {7, 40, 130}) {
    for (const bool linear : {false, true}) {
      for (const std::optional<int64_t> window : {std::optional<int64_t>(), {3}, {37}}) {
        auto seen = causal(frames, frames);
        if (window) seen = seen.logical_and(seen.triu(1 - *window));
        for (const auto type : {at::kFloat, at::kBFloat16}) {
          const auto t = draw(frames, frames, 2, 2, 9, type);
          const auto inputs = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
            const auto pixel = [](const at::Tensor& x) { return x.unsqueeze(2); };
            return temporal_detail::Inputs{pixel(q), pixel(k), pixel(v), linear,
                                           true,     window,   {},       {}};
          };
          const auto expect = [&](const std::string& form, double bound, const auto& run) {
            for (const int64_t place : {frames - 1, frames / 2})
              expect_hidden_changes_nothing(
                  fmt::format("{} frames {} window {} {}{} place {}", frames, form,
                              window.value_or(0), c10::toString(type), linear ? " linear" : "",
                              place),
                  seen, {place}, t, run, bound);
          };
          for (const auto form : {Form::pairs, Form::blocks, Form::states}) {
            if ((form == Form::states && !linear) || (form == Form::pairs && frames > 40)) continue;
            for (const auto level : levels()) {
              expect(
                  fmt::format("form {} level {}", static_cast<int>(form), static_cast<int>(level)),
                  0, [&](const AttentionTensors& a) {
                    const auto in = inputs(a.query, a.key, a.value);
                    const auto grad =
                        temporal_detail::backward_cpu(in, a.grad_out.unsqueeze(2), level, form);
                    return AttentionResult{temporal_detail::forward_cpu(in, level, form).squeeze(2),
                                           grad.q.squeeze(2), grad.k.squeeze(2), grad.v.squeeze(2)};
                  });
            }
          }
          expect("composed", 0, [&](const AttentionTensors& a) {
            return differentiated(
                a, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                  return temporal_detail::composed(inputs(q, k, v)).squeeze(2);
                });
          });
          if (HasFailure()) return;
        }
      }
    }
  }
}

// A part without keys, or whose scores are all -infinity, has no share, whatever it holds.
TEST(Spoiled, PartsWithoutKeysAreMergedAway) {
  const auto out = at::randn({1, 6, 2, 4}), lse = at::randn({1, 6, 2});
  const auto none = at::full({1, 6, 2}, -std::numeric_limits<double>::infinity());
  const auto nan = at::full({1, 6, 2, 4}, std::numeric_limits<double>::quiet_NaN());
  auto leaf = out.clone().requires_grad_(), weight = lse.clone().requires_grad_();
  const auto merged = merge_attentions({leaf, nan}, {weight, none});
  EXPECT_TRUE(test::near(merged.out.detach(), out, 1e-6));
  EXPECT_TRUE(test::near(merged.lse.detach(), lse, 1e-6));
  const auto grads = torch::autograd::grad({merged.out.sum()}, {leaf, weight});
  EXPECT_TRUE(test::near(grads[0], at::ones_like(out), 1e-6));
  EXPECT_LT(grads[1].abs().max().item<double>(), 1e-5);
}

TEST(AllFinite, OfEveryTypeAndLayout) {
  for (const auto type : kTypes) {
    const auto dense = at::randn({3, 5, 7, 8}, at::kDouble).to(type);
    for (const auto& t : {dense, dense.transpose(1, 2), dense.select(2, 3), dense.slice(3, 0, 5),
                          dense.slice(3, 0, 8, 2), dense.select(3, 0), dense.slice(1, 4, 4)})
      EXPECT_TRUE(all_finite(t)) << t.sizes();
    for (const double number :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity()}) {
      auto spoiled = dense.clone();
      spoiled[1][4][3][6] = number;
      for (const auto& t : {spoiled, spoiled.transpose(1, 2), spoiled.select(2, 3),
                            spoiled.slice(3, 0, 8, 2), spoiled.select(3, 6)})
        EXPECT_FALSE(all_finite(t)) << t.sizes();
      EXPECT_TRUE(all_finite(spoiled.slice(3, 0, 6)));
      EXPECT_TRUE(all_finite(spoiled.select(2, 2)));
    }
    auto largest = dense.clone();
    largest[0][0][0][0] = type == at::kHalf ? 65504.0 : 1e38;
    EXPECT_TRUE(all_finite(largest));
  }
  auto long_one = at::zeros({1 << 20});
  EXPECT_TRUE(all_finite(long_one));
  long_one[(1 << 20) - 1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(all_finite(long_one));
}

}  // namespace
}  // namespace halcyon
