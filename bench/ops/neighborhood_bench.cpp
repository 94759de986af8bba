// SPDX-License-Identifier: Apache-2.0
// Fused neighborhood attention: the cases of spec section 15. Useful work is 4 W d a query and head
// forward and 8 W d backward, W the product of the kernel sizes, also where it is causal.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <memory>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "halcyon/ops/neighborhood/backends.h"

namespace halcyon::bench {
namespace {

using neighborhood::Axis;
using neighborhood::Inputs;

struct Problem {
  const char* name;
  std::vector<Axis> axes;
  int64_t heads, channels;
  bool tiles = false;  // though its windows cover the axes
};

std::vector<Axis> axes(const std::vector<int64_t>& lengths, const std::vector<int64_t>& kernels,
                       int64_t dilation = 1, bool causal = false) {
  std::vector<Axis> all;
  all.reserve(lengths.size());
  for (std::size_t a = 0; a < lengths.size(); ++a)
    all.push_back({lengths[a], kernels[a], dilation, 1, causal, false});
  return all;
}

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all{
      {"2d_56_k7", axes({56, 56}, {7, 7}), 4, 32},
      {"2d_56_k13", axes({56, 56}, {13, 13}), 4, 32},
      {"2d_64_k7", axes({64, 64}, {7, 7}), 8, 64},
      {"2d_64_k13", axes({64, 64}, {13, 13}), 8, 64},
      {"2d_64_k21", axes({64, 64}, {21, 21}), 8, 64},
      {"2d_64_k7_d4", axes({64, 64}, {7, 7}, 4), 8, 64},
      {"2d_128_k7", axes({128, 128}, {7, 7}), 4, 32},
      {"2d_128_k13", axes({128, 128}, {13, 13}), 4, 32},
      {"2d_128_k7_h16", axes({128, 128}, {7, 7}), 16, 32},
      {"1d_4096_k127", axes({4096}, {127}), 8, 64},
      {"1d_4096_k127_causal", axes({4096}, {127}, 1, true), 8, 64},
      {"3d_8x32x32", axes({8, 32, 32}, {3, 7, 7}), 4, 32},
      {"1d_1024_all", axes({1024}, {1024}), 8, 64},
      {"1d_1024_all_tiles", axes({1024}, {1024}), 8, 64, true},
  };
  return all;
}

// One problem with what its passes leave behind.
struct State {
  Inputs in;
  at::Tensor grad_out;
  neighborhood::Output forward;
  neighborhood::Gradients grad;
  double pairs = 1;
};

std::shared_ptr<State> make_state(const Problem& p, at::ScalarType type) {
  auto state = std::make_shared<State>();
  at::manual_seed(1);
  std::vector<int64_t> shape{1};
  for (const auto& axis : p.axes) {
    shape.push_back(axis.length);
    state->pairs *= static_cast<double>(axis.length * axis.kernel);
  }
  shape.insert(shape.end(), {p.heads, p.channels});
  const auto tensor = [&] { return at::randn(shape).to(type); };
  state->in = {tensor(), tensor(), tensor(), {}, {}, {}, p.axes, 1 / std::sqrt(double(p.channels))};
  state->grad_out = tensor();
  return state;
}

// The last head alone against the reference, whose memory grows with the window.
double deviation_of(const State& state, bool backward, double allowed) {
  const auto head = [](const at::Tensor& t) {
    return t.narrow(-2, t.size(-2) - 1, 1).to(at::kFloat).detach().clone();
  };
  auto in = state.in;
  for (auto* t : {&in.query, &in.key, &in.value}) *t = head(*t).requires_grad_(backward);
  const auto expected = neighborhood::reference(in);
  double worst = deviation(head(state.forward.out), expected.out.detach(), allowed);
  if (backward) {
    expected.out.backward(head(state.grad_out));
    const std::pair<at::Tensor, at::Tensor> pairs[] = {{state.grad.query, in.query.grad()},
                                                       {state.grad.key, in.key.grad()},
                                                       {state.grad.value, in.value.grad()}};
    for (const auto& [actual, wanted] : pairs)
      worst = std::max(worst, deviation(head(actual), wanted, 2 * allowed));
  }
  return worst;
}

Case make_case(const Problem& p, at::ScalarType type, bool backward) {
  const auto state = make_state(p, type);
  const double allowed = type == at::kBFloat16 ? 2e-2 : 2e-5;
  Case c;
  c.type = type;
  c.flops = (backward ? 8 : 4) * state->pairs * static_cast<double>(p.heads * p.channels);
  const bool plain = neighborhood::is_plain(state->in) && !p.tiles;
  if (backward) state->forward = neighborhood::forward_tiled(state->in);
  c.run = [state, backward, plain] {
    if (plain && backward) {
      state->grad = neighborhood::backward_plain(state->in, state->forward, state->grad_out, {});
    } else if (plain) {
      state->forward = neighborhood::forward_plain(state->in);
    } else if (backward) {
      const auto delta = neighborhood::delta_of(state->forward, state->grad_out, {});
      state->grad =
          neighborhood::backward_tiled(state->in, state->forward.lse, state->grad_out, delta);
    } else {
      state->forward = neighborhood::forward_tiled(state->in);
    }
  };
  c.deviation = [state, backward, allowed] { return deviation_of(*state, backward, allowed); };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const auto& problem : problems()) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const bool backward : {false, true}) {
        add(fmt::format("{}/{}/{}", problem.name, backward ? "bwd" : "fwd",
                        type == at::kFloat ? "fp32" : "bf16"),
            [&problem, type, backward] { return make_case(problem, type, backward); });
      }
    }
  }
  return run(argc, argv);
}
