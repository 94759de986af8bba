// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/neighborhood_attention.h"

#include <cmath>

#include "halcyon/nn/parameters.h"
#include "halcyon/ops/tuning/switches.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

using Options = NeighborhoodAttentionOptions;
using Module = NeighborhoodAttentionImpl;

constexpr auto kUnsupported = ErrorKind::unsupported;

// kernel_size: 3 or [3, 5]; is_causal: true or [true, false].
std::vector<int64_t> numbers(const nlohmann::json& value) {
  const auto one = [](const nlohmann::json& v) {
    return v.is_boolean() ? static_cast<int64_t>(v.get<bool>()) : v.get<int64_t>();
  };
  if (!value.is_array()) return {one(value)};
  std::vector<int64_t> all;
  for (const auto& v : value) all.push_back(one(v));
  return all;
}

Options options_of(const nlohmann::json& config) {
  Options options;
  options.dim = config.contains("dim") ? config["dim"] : config["embed_dim"];
  options.num_heads = config["num_heads"];
  options.kernel_size = numbers(config["kernel_size"]);
  options.dilation = numbers(config.value("dilation", nlohmann::json(1)));
  options.stride = numbers(config.value("stride", nlohmann::json(1)));
  options.is_causal = numbers(config.value("is_causal", nlohmann::json(false)));
  options.rel_pos_bias = config.value("rel_pos_bias", false);
  options.qkv_bias = config.value("qkv_bias", true);
  return options;
}

TEST(NeighborhoodAttention, GoldensOfTheUnfusedGeneration) {
  HALCYON_NEEDS_SHARED();
  const auto file = golden("neighborhood/modules_017");
  for (const auto& [name, text] : file.metadata) {
    const auto config = nlohmann::json::parse(text);
    for (const auto fused : std::vector<std::optional<bool>>{{}, false, true}) {
      SCOPED_TRACE(name);
      auto options = options_of(config);
      options.fused = fused;
      Module module(config["dims"], options);
      module.to(torch::kDouble);
      ASSERT_TRUE(set_state(module, file.under(name + "/param.")));
      const auto x = file.at(name + "/x").clone().requires_grad_();
      const auto y = module.forward(x);
      EXPECT_TRUE(near(y, file.at(name + "/y"), 1e-12));
      y.backward(file.at(name + "/d_y"));
      EXPECT_TRUE(near(x.grad(), file.at(name + "/d_x"), 1e-12));
      for (const auto& entry : module.named_parameters())
        EXPECT_TRUE(near(entry.value().grad(), file.at(name + "/grad." + entry.key()), 1e-12))
            << entry.key();
    }
  }
}

TEST(NeighborhoodAttention, GoldensOfTheFusedGeneration) {
  HALCYON_NEEDS_SHARED();
  const auto file = golden("neighborhood/modules_021");
  for (const auto& [name, text] : file.metadata) {
    const auto config = nlohmann::json::parse(text);
    Module module(config["dims"], options_of(config));
    ASSERT_TRUE(set_state(module, file.under(name + "/param."))) << name;
    EXPECT_TRUE(near(module.forward(file.at(name + "/x")), file.at(name + "/y"), 5e-6)) << name;
  }
}

std::vector<Options> variants() {
  const Options plain{8, 2};
  auto dilated = plain, causal = plain, scaled = plain;
  dilated.kernel_size = {2};
  dilated.dilation = {2};
  dilated.rel_pos_bias = true;
  causal.is_causal = {1};
  causal.qkv_bias = false;
  scaled.qk_scale = 0;
  return {plain, dilated, causal, scaled};
}

at::Tensor input(int rank) {
  std::vector<int64_t> shape(static_cast<std::size_t>(rank) + 2, 5);
  shape.front() = 2;
  shape.back() = 8;
  return leaf(shape);
}

TEST(NeighborhoodAttention, BothPathsAreTheSameWithRightGradients) {
  torch::manual_seed(1);
  for (int rank = 1; rank <= 3; ++rank) {
    for (auto options : variants()) {
      options.fused = true;
      Module fused(rank, options);
      options.fused = false;
      Module unfused(rank, options);
      const auto x = input(rank);
      const auto leaves = double_leaves(fused, {x});
      unfused.to(torch::kDouble);
      ASSERT_TRUE(set_state(unfused, state_copy(fused)));
      EXPECT_TRUE(near(unfused.forward(x), fused.forward(x), kDouble)) << rank;
      EXPECT_TRUE(gradcheck([&] { return std::vector{fused.forward(x)}; }, leaves, 1e-6, 6));
      std::vector<at::Tensor> others{x};
      for (const auto& p : unfused.parameters()) others.push_back(p);
      EXPECT_TRUE(gradcheck([&] { return std::vector{unfused.forward(x)}; }, others, 1e-6, 6));
    }
  }
}

// The fused operator between projections that change nothing; so stride and periodicity arrive.
TEST(NeighborhoodAttention, StridedAndPeriodicAxes) {
  torch::manual_seed(2);
  auto strided = Options{6, 1}, periodic = Options{6, 1};
  strided.stride = {2, 3};
  strided.fused = false;
  periodic.periodic = {0, 1};
  for (const auto& options : {strided, periodic}) {
    NeighborhoodAttention2D module(options);
    {
      torch::NoGradGuard no_grad;
      const auto eye = torch::eye(6);
      module->named_parameters()["qkv.weight"].copy_(torch::cat({eye, eye, eye}));
      module->named_parameters()["qkv.bias"].zero_();
      module->named_parameters()["proj.weight"].copy_(eye);
      module->named_parameters()["proj.bias"].zero_();
    }
    const auto x = torch::randn({2, 4, 6, 6});
    const auto heads = x.unsqueeze(-2);
    NeighborhoodOptions window;
    window.kernel_size = {3};
    window.stride = options.stride;
    window.periodic = options.periodic;
    EXPECT_TRUE(near(module->forward(x), na2d(heads, heads, heads, window).out.flatten(-2), 1e-6));
  }
}

TEST(NeighborhoodAttention, TheSwitchChoosesThePath) {
  torch::manual_seed(3);
  NeighborhoodAttention1D module(Options{8, 2});
  Options options{8, 2};
  options.fused = true;
  NeighborhoodAttention1D fused(options);
  ASSERT_TRUE(set_state(*fused, state_copy(*module)));
  const auto x = torch::randn({1, 40, 8});
  const auto before = module->forward(x);
  const bool parallel = is_kv_parallelism_in_fused_na_enabled();
  use_fused_na();
  const auto after = module->forward(x);
  use_fused_na(false);
  use_kv_parallelism_in_fused_na(parallel);
  EXPECT_TRUE(identical(after, fused->forward(x)));
  EXPECT_TRUE(near(before, after, 1e-6));
}

// One head, three tokens, equal scores: on the identity the output is the weights themselves.
NeighborhoodAttention1D showing_weights(Options options) {
  options.dim = 3;
  options.qkv_bias = false;
  NeighborhoodAttention1D module(options);
  torch::NoGradGuard no_grad;
  auto p = module->named_parameters();
  p["qkv.weight"].copy_(torch::cat({torch::zeros({6, 3}), torch::eye(3)}));
  p["proj.weight"].copy_(torch::eye(3));
  p["proj.bias"].zero_();
  return module;
}

TEST(NeighborhoodAttention, DropsWeightsInTrainingOnEveryPath) {
  torch::manual_seed(4);
  Options unfused, fused, strided, periodic;
  unfused.fused = false;
  fused.fused = true;
  strided.stride = {2};
  periodic.periodic = {1};
  for (auto options : {unfused, fused, strided, periodic}) {
    options.attn_drop = 0.25;
    auto module = showing_weights(options);
    const auto x = torch::eye(3).repeat({2000, 1, 1});
    const auto weights = module->forward(x);
    const auto kept = weights.masked_select(weights > 0);
    EXPECT_TRUE(near(kept, torch::full_like(kept, 1 / 3.0 / 0.75), 1e-6));
    EXPECT_NEAR(static_cast<double>(kept.numel()) / static_cast<double>(weights.numel()), 0.75,
                0.02);
    EXPECT_FALSE(near(module->forward(x), weights, 1e-3));
    module->eval();
    EXPECT_TRUE(near(module->forward(x), torch::full_like(x, 1 / 3.0), 1e-6));
  }
}

TEST(NeighborhoodAttention, DropsTheProjectionInTraining) {
  torch::manual_seed(5);
  Options options{8, 2};
  options.proj_drop = 0.5;
  NeighborhoodAttention2D module(options);
  const auto x = torch::randn({4, 9, 9, 8});
  const auto y = module->forward(x);
  EXPECT_NEAR(y.eq(0).to(at::kFloat).mean().item<double>(), 0.5, 0.05);
  module->eval();
  const auto whole = module->forward(x);
  EXPECT_TRUE(near(y, torch::where(y.eq(0), y, 2 * whole), 1e-6));
}

TEST(NeighborhoodAttention, State) {
  Options options{12, 3, {2, 3, 4}};
  options.rel_pos_bias = true;
  NeighborhoodAttention3D module(options);
  const auto p = module->named_parameters();
  EXPECT_EQ(p["qkv.weight"].sizes(), at::IntArrayRef({36, 12}));
  EXPECT_EQ(p["qkv.bias"].sizes(), at::IntArrayRef({36}));
  EXPECT_EQ(p["rpb"].sizes(), at::IntArrayRef({3, 3, 5, 7}));
  EXPECT_EQ(p["proj.weight"].sizes(), at::IntArrayRef({12, 12}));
  EXPECT_EQ(p["proj.bias"].sizes(), at::IntArrayRef({12}));
  EXPECT_EQ(p.size(), 5u);
  options.kernel_size = {9};
  options.num_heads = 4;
  const auto table = NeighborhoodAttention3D(options)->named_parameters()["rpb"];
  EXPECT_NEAR(table.std().item<double>(), 0.02, 1e-3);
  EXPECT_NEAR(table.mean().item<double>(), 0, 1e-3);
  options.qkv_bias = options.rel_pos_bias = false;
  EXPECT_EQ(NeighborhoodAttention1D(Options{12, 3})->named_parameters().size(), 4u);
  EXPECT_EQ(NeighborhoodAttention3D(options)->named_parameters().size(), 3u);
}

TEST(NeighborhoodAttention, StridedEmptyBf16Autocast) {
  Options options{8, 2};
  options.rel_pos_bias = true;
  for (const bool fused : {false, true}) {
    options.fused = fused;
    NeighborhoodAttention1D module(options);
    const auto x = torch::randn({8, 7, 3}).permute({2, 1, 0});
    const auto y = module->forward(x);
    EXPECT_TRUE(near(module->forward(x.contiguous()), y, 1e-6));
    EXPECT_EQ(module->forward(torch::zeros({0, 7, 8})).sizes(), at::IntArrayRef({0, 7, 8}));
    {
      const Bf16Autocast autocast;
      const auto low = module->forward(x);
      EXPECT_EQ(low.scalar_type(), at::kBFloat16);
      EXPECT_TRUE(near(low, y, kBf16));
    }
    module->to(torch::kBFloat16);
    EXPECT_TRUE(near(module->forward(x.to(at::kBFloat16)), y, 2 * kBf16));
  }
}

std::function<void()> making(const std::function<void(Options&)>& change) {
  return [change] {
    Options options{8, 2};
    change(options);
    NeighborhoodAttention2D module(options);
  };
}

TEST(NeighborhoodAttention, ConstructorRefuses) {
  EXPECT_TRUE(refuses(making([](auto& o) { o.dim = 0; }), "[NeighborhoodAttention2D]"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.num_heads = 3; }), "divides, got 8 and 3"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.kernel_size = {0}; }), "kernel_size of 1 or more"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.kernel_size = {3, 3, 3}; }), "one kernel_size or 2"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.dilation = {0}; }), "dilation of 1 or more"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.stride = {4}; }), "stride in 1..3"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.is_causal = {2}; }), "is_causal of 0 or 1"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.attn_drop = 1.5; }), "attn_drop between 0 and 1"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.proj_drop = -1; }), "proj_drop between 0 and 1"));
  EXPECT_TRUE(refuses(making([](auto& o) { o.qk_scale = NAN; }), "finite qk_scale"));
  EXPECT_TRUE(refuses(making([](auto& o) {
                        o.is_causal = {0, 1};
                        o.rel_pos_bias = true;
                      }),
                      "no rel_pos_bias with a causal axis", kUnsupported));
  EXPECT_TRUE(refuses(making([](auto& o) {
                        o.periodic = o.is_causal = {0, 1};
                      }),
                      "without causality", kUnsupported));
  EXPECT_TRUE(refuses(making([](auto& o) {
                        o.periodic = {1};
                        o.stride = {2};
                      }),
                      "stride 1 on a periodic axis", kUnsupported));
}

TEST(NeighborhoodAttention, ForwardRefuses) {
  NeighborhoodAttention2D module(Options{8, 2});
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 5, 8})); }, "x (B, L0, L1, dim)"));
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 5, 5, 7})); }, "width 8"));
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 5, 5, 8}, at::kLong)); }, "floating"));
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 5, 5, 8}, at::kDouble)); }, "dtype"));
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 2, 5, 8})); }, "of at most 2"));
  const nn::ParametersGuard placeholders(nn::Parameters::placeholders);
  NeighborhoodAttention1D empty(Options{8, 2});
  EXPECT_TRUE(refuses([&] { empty->forward(torch::zeros({1, 5, 8})); }, "expected weights"));
}

}  // namespace
}  // namespace halcyon::test
