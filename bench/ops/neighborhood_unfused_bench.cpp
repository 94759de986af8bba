// SPDX-License-Identifier: Apache-2.0
// Unfused neighborhood attention: scores with the window and weighted sums over it. Useful work is
// 2 W d a query and head forward and twice that backward. Rows that end in _aten are the
// composition of ATen operators over gathered windows, whose backward has a forward before it.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <memory>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "halcyon/ops/neighborhood/unfused_backends.h"

namespace halcyon::bench {
namespace {

using namespace neighborhood;  // NOLINT: the functions under measurement

struct Problem {
  const char* name;
  std::vector<int64_t> lengths, kernels;
  int64_t heads, channels;
};

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all{
      {"2d_56_k7", {56, 56}, {7, 7}, 4, 32},
      {"2d_64_k7", {64, 64}, {7, 7}, 8, 64},
      {"2d_64_k13", {64, 64}, {13, 13}, 8, 64},
      {"2d_128_k7", {128, 128}, {7, 7}, 4, 32},
      {"1d_4096_k7", {4096}, {7}, 8, 64},
      {"1d_4096_k127", {4096}, {127}, 8, 64},
      {"3d_8x32x32", {8, 32, 32}, {3, 7, 7}, 4, 32},
  };
  return all;
}

// x . y of the window is attn, or attn . y is x; one gradient comes in, two go out.
struct State {
  std::vector<Axis> axes;
  at::Tensor attn, x, y, result;
  std::vector<at::Tensor> gradients;
  double pairs = 1;
};

enum class Product { qk, av };

at::Tensor forward(const State& s, Product product, bool aten) {
  if (product == Product::qk)
    return aten ? reference_scores(s.x, s.y, {}, {}, s.axes, 0)
                : window_scores(s.x, s.y, {}, {}, s.axes, 0);
  return aten ? reference_sums(s.attn, s.y, {}, s.axes) : window_sums(s.attn, s.y, {}, s.axes);
}

std::vector<at::Tensor> backward(const State& s, Product product, bool aten) {
  if (aten) {
    auto own = s;
    for (auto* t : {&own.attn, &own.x, &own.y}) *t = t->detach().requires_grad_();
    auto out = forward(own, product, true);
    out.backward(product == Product::qk ? s.attn : s.x);
    return {product == Product::qk ? own.x.grad() : own.attn.grad(), own.y.grad()};
  }
  if (product == Product::qk)
    return {window_sums(s.attn, s.y, {}, s.axes), window_key_sums(s.attn, s.x, s.axes).keys};
  return {window_scores(s.x, s.y, {}, {}, s.axes, 0), window_key_sums(s.attn, s.x, s.axes).keys};
}

std::shared_ptr<State> make_state(const Problem& p, at::ScalarType type) {
  auto state = std::make_shared<State>();
  at::manual_seed(1);
  std::vector<int64_t> shape{1, p.heads};
  int64_t window = 1;
  for (std::size_t a = 0; a < p.lengths.size(); ++a) {
    state->axes.push_back({p.lengths[a], p.kernels[a], 1, 1, false, false});
    shape.push_back(p.lengths[a]);
    window *= p.kernels[a];
    state->pairs *= static_cast<double>(p.lengths[a] * p.kernels[a]);
  }
  shape.push_back(p.channels);
  state->x = at::randn(shape).to(type);
  state->y = at::randn(shape).to(type);
  shape.back() = window;
  state->attn = at::randn(shape).to(type);
  return state;
}

// The last head alone by the composition, whose memory grows with the window.
double deviation_of(const State& state, Product product, bool backwards, double allowed) {
  const auto head = [](const at::Tensor& t) {
    return t.narrow(1, t.size(1) - 1, 1).to(at::kFloat).detach().clone();
  };
  auto one = state;
  for (auto* t : {&one.attn, &one.x, &one.y}) *t = head(*t);
  if (!backwards) return deviation(head(state.result), forward(one, product, true), allowed);
  const auto expected = backward(one, product, true);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, deviation(head(state.gradients[i]), expected[i], allowed));
  return worst;
}

Case make_case(const Problem& p, at::ScalarType type, Product product, bool backwards, bool aten) {
  const auto state = make_state(p, type);
  const double allowed = type == at::kBFloat16 ? 2e-2 : 2e-5;
  Case c;
  c.type = type;
  c.flops = (backwards ? 4 : 2) * state->pairs * static_cast<double>(p.heads * p.channels);
  c.run = [=] {
    if (backwards) {
      state->gradients = backward(*state, product, aten);
    } else {
      state->result = forward(*state, product, aten);
    }
  };
  c.deviation = [=] { return deviation_of(*state, product, backwards, allowed); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const auto& problem : problems()) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const auto product : {Product::qk, Product::av}) {
        for (const bool aten : {false, true}) {
          for (const bool backwards : {false, true}) {
            // what is compared is float
            if (aten && type != at::kFloat) continue;
            add(fmt::format("{}_{}{}/{}/{}", problem.name, product == Product::qk ? "qk" : "av",
                            aten ? "_aten" : "", backwards ? "bwd" : "fwd",
                            type == at::kFloat ? "fp32" : "bf16"),
                [&problem, type, product, backwards, aten] {
                  return make_case(problem, type, product, backwards, aten);
                });
          }
        }
      }
    }
  }
  return run(argc, argv);
}
