// SPDX-License-Identifier: Apache-2.0
// Attention among HEALPix pixels: the module, and the spatial backends "disk:R" and "rings:k".
#include "halcyon/nn/healpix_self_attention.h"

#include <array>

#include "halcyon/nn/neighborhood_attention_healpix.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace halcyon::test {
namespace {

using healpix::Order;
using Options = NeighborhoodAttentionHEALPixOptions;

constexpr auto kUnsupported = ErrorKind::unsupported;

std::vector<HealpixNeighborhood> windows() {
  return {{1, 50.0, {}, Order::nest, {}},
          {1, {}, 1, Order::pad_xy, {}},
          {2, 40.0, {}, Order::pad_xy, torch::tensor({17, 3, 4, 180, 5, 9}, at::kLong)}};
}

TEST(NeighborhoodAttentionHEALPix, IsDenseMaskedAttention) {
  torch::manual_seed(1);
  for (const auto& window : windows()) {
    Options options{8, 2, window};
    options.qk_scale = 0.3;
    NeighborhoodAttentionHEALPix module(options);
    const auto seen = healpix_seen(window);
    const auto x = leaf({2, seen.size(0), 8});
    const auto leaves = double_leaves(*module, {x});
    const auto p = module->named_parameters();
    EXPECT_EQ(p.size(), 4u);
    EXPECT_TRUE(module->named_buffers().is_empty());
    const auto qkv = at::linear(x, p["qkv.weight"], p["qkv.bias"]).view({2, -1, 3, 2, 4}).unbind(2);
    const auto y = at::scaled_dot_product_attention(qkv[0].transpose(1, 2), qkv[1].transpose(1, 2),
                                                    qkv[2].transpose(1, 2), seen, 0, false, 0.3);
    const auto expected =
        at::linear(y.transpose(1, 2).flatten(2), p["proj.weight"], p["proj.bias"]);
    EXPECT_TRUE(near(module->forward(x), expected, kDouble));
    EXPECT_TRUE(gradcheck([&] { return std::vector{module->forward(x)}; }, leaves, 1e-6, 8));
  }
}

TEST(NeighborhoodAttentionHEALPix, Dropouts) {
  torch::manual_seed(2);
  Options options{12, 1, {0, {}, 4, Order::nest, {}}};  // everybody sees everybody
  options.attn_drop = 0.25;
  options.qkv_bias = false;
  NeighborhoodAttentionHEALPix module(options);
  {
    torch::NoGradGuard no_grad;
    auto p = module->named_parameters();
    p["qkv.weight"].copy_(torch::cat({torch::zeros({24, 12}), torch::eye(12)}));
    p["proj.weight"].copy_(torch::eye(12));
    p["proj.bias"].zero_();
  }
  const auto x = torch::eye(12).repeat({200, 1, 1});
  const auto weights = module->forward(x);
  const auto kept = weights.masked_select(weights > 0);
  EXPECT_TRUE(near(kept, torch::full_like(kept, 1 / 12.0 / 0.75), 1e-6));
  EXPECT_NEAR(static_cast<double>(kept.numel()) / static_cast<double>(weights.numel()), 0.75, 0.02);
  module->eval();
  EXPECT_TRUE(near(module->forward(x), torch::full_like(x, 1 / 12.0), 1e-6));
  options.attn_drop = 0;
  options.proj_drop = 0.5;
  NeighborhoodAttentionHEALPix projection(options);
  const auto zeros = projection->forward(torch::randn({50, 12, 12})).eq(0).to(at::kFloat).mean();
  EXPECT_NEAR(zeros.item<double>(), 0.5, 0.05);
}

TEST(NeighborhoodAttentionHEALPix, Refuses) {
  const auto making = [](HealpixNeighborhood window, int64_t heads = 2) {
    return [=] { NeighborhoodAttentionHEALPix(Options{8, heads, window}); };
  };
  EXPECT_TRUE(refuses(making({1, 10.0, {}, Order::nest, {}}, 3), "divides, got 8 and 3"));
  EXPECT_TRUE(refuses(making({1, {}, {}, Order::nest, {}}), "[NeighborhoodAttentionHEALPix]"));
  EXPECT_TRUE(refuses(making({1, 10.0, {}, Order::ring, {}}), "nest or pad_xy"));
  EXPECT_TRUE(refuses(making({1, 10.0, {}, Order::nest, torch::tensor({48}, at::kLong)}),
                      "pixels in 0..47, got 48"));
  NeighborhoodAttentionHEALPix module(Options{8, 2, {1, 10.0, {}, Order::nest, {}}});
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({1, 47, 8})); }, "48 pixels, got 47"));
  EXPECT_TRUE(refuses([&] { module->forward(torch::zeros({48, 8})); }, "x (B, L, dim)"));
}

SpatialAttentionOptions spatial(const std::optional<std::string>& norm = {}, bool affine = true) {
  SpatialAttentionOptions options;
  options.hidden_size = 8;
  options.num_heads = 2;
  options.qk_norm_type = norm;
  options.qk_norm_affine = affine;
  return options;
}

at::Tensor attended(SpatialAttentionBase& layer, const at::Tensor& x, const at::Tensor& mask = {}) {
  SpatialAttentionKwargs kwargs;
  if (mask.defined()) kwargs.attn_mask = mask;
  return layer.attend(x, kwargs);
}

// Output, gradient of x and those of the state in one piece: a key's bias has none but rounding.
std::array<at::Tensor, 3> everything(SpatialAttentionBase& layer, const at::Tensor& x,
                                     const at::Tensor& mask = {}) {
  const auto given = x.clone().requires_grad_();
  layer.zero_grad();
  const auto y = attended(layer, given, mask);
  y.square().sum().backward();
  std::vector<at::Tensor> state;
  for (const auto& p : layer.parameters()) state.push_back(p.grad().flatten());
  return {y, given.grad(), torch::cat(state)};
}

// The backend and SelfAttention with the same state and a mask.
void check_backend(const std::string& name, const SpatialAttentionOptions& options,
                   const HealpixNeighborhood& window) {
  SCOPED_TRACE(name);
  const auto local = make_spatial_attention(name, options);
  const auto dense = make_spatial_attention("timm", options);
  local->to(torch::kDouble);
  double_leaves(*dense, {});
  ASSERT_TRUE(set_state(*local, state_copy(*dense)));
  const auto seen = healpix_seen(window);
  const auto x = torch::randn({3, seen.size(0), 8}, torch::kDouble);
  const auto ours = everything(*local, x), wanted = everything(*dense, x, seen);
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(near(ours[i], wanted[i], kDouble)) << i;
}

TEST(HealpixBackend, IsSelfAttentionWithTheWindowAsMask) {
  torch::manual_seed(3);
  for (const auto& options :
       {spatial(), spatial("RMSNorm", false), spatial("RMSNorm"), spatial("LayerNorm")}) {
    check_backend("disk-nest:50.5", options, {1, 50.5, {}, Order::nest, {}});
    check_backend("disk:50.5", options, {1, 50.5, {}, Order::pad_xy, {}});
    check_backend("flex-disk-nest:50.5", options, {1, 50.5, {}, Order::nest, {}});
    check_backend("flex-disk:1.8e2", options, {0, 180.0, {}, Order::pad_xy, {}});
    check_backend("rings-nest:1", options, {1, {}, 1, Order::nest, {}});
    check_backend("rings:2", options, {1, {}, 2, Order::pad_xy, {}});
  }
}

TEST(HealpixBackend, OnARegionAndOnAWholeGrid) {
  torch::manual_seed(4);
  auto options = spatial("RMSNorm", false);
  const auto pixels = torch::tensor({3, 4, 5, 9, 17, 180}, at::kLong);
  options.grid = Region::of_pixels(2, pixels);
  check_backend("disk:40", options, {2, 40.0, {}, Order::pad_xy, pixels});
  check_backend("rings:1", options, {2, {}, 1, Order::pad_xy, pixels});
  const auto regional = make_spatial_attention("disk:40", options);
  EXPECT_TRUE(refuses([&] { attended(*regional, torch::zeros({1, 12, 8})); }, "x of 6 tokens"));
  EXPECT_TRUE(refuses([&] { make_spatial_attention("disk-nest:40", options); },
                      "tokens in pad_xy order, got \"disk-nest:40\" for nest", kUnsupported));
  options.grid = Region::global(1);
  check_backend("disk:40", options, {1, 40.0, {}, Order::pad_xy, {}});
  const auto global = make_spatial_attention("disk:40", options);
  EXPECT_TRUE(refuses([&] { attended(*global, torch::zeros({1, 12, 8})); }, "x of 48 tokens"));
}

TEST(HealpixBackend, EpsilonOfTheNorms) {
  torch::manual_seed(5);
  auto options = spatial("RMSNorm", false);
  const auto x = torch::randn({1, 12, 8});
  const auto usual = make_spatial_attention("disk:60", options);
  options.qk_norm_eps = 1e-6;
  const auto given = make_spatial_attention("disk:60", options);
  options.qk_norm_eps = 10.0;
  const auto large = make_spatial_attention("disk:60", options);
  ASSERT_TRUE(set_state(*given, state_copy(*usual)));
  ASSERT_TRUE(set_state(*large, state_copy(*usual)));
  EXPECT_TRUE(identical(attended(*given, x), attended(*usual, x)));
  EXPECT_FALSE(near(attended(*large, x), attended(*usual, x), 1e-4));
  options.qk_norm_eps = -1.0;
  EXPECT_TRUE(refuses([&] { make_spatial_attention("timm", options); }, "qk_norm_eps of 0"));
}

TEST(HealpixBackend, DropoutAndLowPrecision) {
  torch::manual_seed(6);
  auto options = spatial("RMSNorm");
  options.attn_drop_rate = 0.5;
  const auto layer = make_spatial_attention("disk:60", options);
  const auto x = torch::randn({1, 48, 8});
  EXPECT_FALSE(near(attended(*layer, x), attended(*layer, x), 1e-3));
  layer->eval();
  const auto y = attended(*layer, x);
  EXPECT_TRUE(identical(attended(*layer, x), y));
  {
    const Bf16Autocast autocast;
    const auto low = attended(*layer, x);
    EXPECT_EQ(low.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(near(low, y, kBf16));
  }
  EXPECT_EQ(attended(*layer, torch::zeros({0, 48, 8})).sizes(), at::IntArrayRef({0, 48, 8}));
}

TEST(HealpixBackend, Refuses) {
  for (const std::string name : {"disk", "disk:", "disk:wide", "disk-nest:10x", "disk:0", "disk:-1",
                                 "disk:181", "disk:nan", "flex-disk: 3"})
    EXPECT_TRUE(refuses([&] { make_spatial_attention(name, spatial()); },
                        ":R with a radius R above 0 up to 180 degrees, got \"" + name + "\""));
  for (const std::string name : {"rings", "rings:", "rings-nest:1.5", "rings:-1"})
    EXPECT_TRUE(refuses([&] { make_spatial_attention(name, spatial()); },
                        ":k with k rings, 0 or more, got \"" + name + "\""));
  EXPECT_TRUE(refuses([&] { make_spatial_attention("disk-ring:10", spatial()); },
                      "[attention_backend] expected one of disk, disk-nest"));
  auto causal = spatial();
  causal.is_causal = true;
  EXPECT_TRUE(
      refuses([&] { make_spatial_attention("disk:9", causal); }, "no is_causal", kUnsupported));
  const auto layer = make_spatial_attention("disk-nest:9", spatial());
  EXPECT_TRUE(refuses(
      [&] {
        attended(*layer, torch::zeros({1, 50, 8}));
      },
      "[disk-nest:9] expected x of 12 * 4^level tokens, got (1, 50, 8)"));
  EXPECT_TRUE(refuses(
      [&] {
        attended(*layer, torch::zeros({1, 48, 8}), torch::ones({48, 48}, at::kBool));
      },
      "no attn_mask", kUnsupported));
}

}  // namespace
}  // namespace halcyon::test
