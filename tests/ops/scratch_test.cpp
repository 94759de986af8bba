// SPDX-License-Identifier: Apache-2.0
// What stands in memory that nobody has written is nobody's: with every new tensor full of NaN the
// operators give the same bits.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "halcyon/ops/attention/attention.h"
#include "halcyon/ops/neighborhood/neighborhood.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/ops/neighborhood/unfused.h"
#include "halcyon/ops/temporal/temporal.h"
#include "tests/ops/ops_test.h"
#include "tests/ops/pixel_attention_case.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::identical;

// While it lives, at::empty fills what it makes with NaN.
class NanMemory {
 public:
  NanMemory() {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
  }
  ~NanMemory() { at::globalContext().setDeterministicAlgorithms(false, false); }
};

// f(leaves) and the gradients of what it gives.
using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

std::vector<at::Tensor> results(std::vector<at::Tensor> leaves, const Function& f) {
  for (auto& t : leaves) t = t.detach().clone().requires_grad_();
  const auto y = f(leaves);
  auto all = torch::autograd::grad({y}, leaves, {at::ones_like(y)});
  all.push_back(y.detach());
  return all;
}

void expect_unmoved(const std::string& text, const std::vector<at::Tensor>& leaves,
                    const Function& f) {
  const auto expected = results(leaves, f);
  const NanMemory nan;
  ASSERT_TRUE(at::empty({3}).isnan().all().item<bool>());
  const auto actual = results(leaves, f);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(identical(actual[i], expected[i])) << text << " " << i;
}

std::vector<at::Tensor> drawn(std::vector<int64_t> shape, at::ScalarType type) {
  at::manual_seed(5);
  std::vector<at::Tensor> all;
  for (int i = 0; i < 3; ++i) all.push_back(at::randn(shape, at::kDouble).to(type));
  return all;
}

constexpr at::ScalarType kTypes[]{at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

TEST(UnwrittenMemory, OfWindows) {
  for (const auto type : kTypes) {
    for (const char* backend : {"tiled", "gemm", "reference"}) {
      for (const bool causal : {false, true}) {
        for (const int64_t stride : {1, 2}) {
          NeighborhoodOptions options;
          options.kernel_size = {3, 5};
          options.dilation = {1, 2};
          options.stride = {stride};
          options.is_causal = {causal, false};
          options.backend = backend;
          expect_unmoved(fmt::format("na2d {} {}", backend, c10::toString(type)),
                         drawn({1, 7, 19, 2, 9}, type), [&](const std::vector<at::Tensor>& x) {
                           return na2d(x[0], x[1], x[2], options).out;
                         });
        }
      }
    }
    NeighborhoodOptions options;
    options.kernel_size = {5};
    options.is_causal = {true};
    expect_unmoved("unfused", drawn({1, 2, 19, 9}, type), [&](const std::vector<at::Tensor>& x) {
      return na_av(1, na_qk(1, x[0], x[1], options).softmax(-1), x[2], options);
    });
  }
}

TEST(UnwrittenMemory, OfPlainAttention) {
  for (const auto type : kTypes) {
    for (const int64_t tokens : {19, 261}) {
      for (const bool causal : {false, true}) {
        AttentionOptions options;
        options.is_causal = causal;
        expect_unmoved(fmt::format("attention {} {}", tokens, c10::toString(type)),
                       drawn({1, tokens, 2, 9}, type), [&](const std::vector<at::Tensor>& x) {
                         return attention(x[0], x[1], x[2], options).out;
                       });
      }
    }
  }
}

TEST(UnwrittenMemory, OfTheSphere) {
  for (const auto type : kTypes) {
    const HealpixNeighborhood window{2, {}, 1, healpix::Order::nest, at::arange(3, 58)};
    expect_unmoved(c10::toString(type), drawn({1, 55, 2, 9}, type),
                   [&](const std::vector<at::Tensor>& x) {
                     return neighborhood_attention_healpix(x[0], x[1], x[2], window);
                   });
  }
}

TEST(UnwrittenMemory, OfFrames) {
  for (const auto type : kTypes) {
    for (const int64_t frames : {9, 90}) {
      for (const bool linear : {false, true}) {
        expect_unmoved(fmt::format("{} frames {}", frames, c10::toString(type)),
                       drawn({1, frames, 2, 3, 9}, type), [&](const std::vector<at::Tensor>& x) {
                         return temporal_attention(x[0], x[1], x[2], linear, true, 35);
                       });
      }
    }
  }
}

TEST(UnwrittenMemory, OfPixels) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    test::AttentionInputs in({18, 2, 5, 7, {3, 0, 70, 1, 9000}}, type);
    expect_unmoved(c10::toString(type), {in.q, in.tokens, in.w_k, in.w_v, in.b_v},
                   [&](const std::vector<at::Tensor>& x) {
                     return pixel_attention(x[0], x[1], x[2], x[3], in.cu, 0, in.n_kv, {}, {},
                                            x[4]);
                   });
  }
}

}  // namespace
}  // namespace halcyon
