// SPDX-License-Identifier: Apache-2.0
// VideoDiT and HealDA with spatial attention among HEALPix pixels near each other.
#include "halcyon/model/healda.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"

namespace halcyon::test {
namespace {

using healpix::Order;

VideoDiT make_dit(const std::string& backend) {
  VideoDiTOptions options;
  options.hidden_size = 8;
  options.num_heads = 2;
  options.num_layers = 2;
  options.emb_channels = 6;
  options.noise_channels = 4;
  options.temporal_attention = true;
  options.adaln_zero_init = false;
  options.attention_backend = backend;
  options.attn_kwargs = {"RMSNorm", false, 1e-6};
  HEALPixPatchDetokenizerOptions out{8, 3, 1, 2};
  out.condition_dim = 6;
  return VideoDiT(
      std::make_shared<HEALPixPatchTokenizerImpl>(HEALPixPatchTokenizerOptions{2, 8, 2, 1, true}),
      std::make_shared<HEALPixPatchDetokenizerImpl>(out), options);
}

// Level 1 is 48 tokens, few enough for all pairs.
TEST(VideoDiT, DiskBackendIsDenseAttentionWithItsMask) {
  torch::manual_seed(1);
  for (const auto& [name, window] :
       {std::pair<std::string, HealpixNeighborhood>{"disk:40", {1, 40.0, {}, Order::pad_xy, {}}},
        {"disk-nest:40", {1, 40.0, {}, Order::nest, {}}},
        {"rings:1", {1, {}, 1, Order::pad_xy, {}}}}) {
    SCOPED_TRACE(name);
    auto local = make_dit(name), dense = make_dit("timm");
    double_leaves(*dense, {});
    local->to(torch::kDouble);
    ASSERT_TRUE(set_state(*local, state_copy(*dense)));
    SpatialAttentionKwargs mask;
    mask.attn_mask = healpix_seen(window);
    const auto t = torch::rand({2}, torch::kDouble);
    const CalendarKwargs times{torch::rand({2, 3}) * 80000, torch::rand({2, 3}) * 300};
    const auto x = leaf({2, 2, 3, 192}), y = x.detach().clone().requires_grad_();
    const auto ours = local->forward(x, t, {}, {}, {}, {}, times);
    const auto wanted = dense->forward(y, t, {}, mask, {}, {}, times);
    EXPECT_TRUE(near(ours, wanted, kDouble));
    ours.square().sum().backward();
    wanted.square().sum().backward();
    EXPECT_TRUE(near(x.grad(), y.grad(), kDouble));
    const auto expected = dense->named_parameters();
    for (const auto& entry : local->named_parameters())
      EXPECT_TRUE(near(entry.value().grad(), expected[entry.key()].grad(), 1e-9)) << entry.key();
    EXPECT_FALSE(near(ours, dense->forward(y, t, {}, {}, {}, {}, times), 1e-3));
  }
}

nlohmann::json small_config(const std::string& backend) {
  return {{"in_channels", 2},
          {"out_channels", 3},
          {"hidden_size", 8},
          {"num_layers", 2},
          {"num_heads", 2},
          {"level_in", 2},
          {"level_model", 1},
          {"time_length", 2},
          {"condition_embed_dim", 6},
          {"noise_channels", 4},
          {"obs_meta_dim", 4},
          {"pixel_attn_n_q_heads", 16},
          {"pixel_attn_head_dim", 2},
          {"obs_token_dim", 8},
          {"pixel_attn_n_kv_heads", 1},
          {"attention_backend", backend}};
}

at::Tensor analysis(HealDA& model, const at::Tensor& x) {
  const int64_t n = 30, pixels = model->pixels_model();
  const auto generator = at::detail::createCPUGenerator(7);
  const auto ids = [&] { return torch::arange(n) % 3; };
  const auto context = prepare_obs_context(
      at::randn({n}, generator, at::TensorOptions()),
      at::randn({n, 4}, generator, at::TensorOptions()), ids(), ids(), ids(),
      at::randint(2 * pixels, {n}, generator, at::TensorOptions(at::kLong)), 2 * pixels);
  return model->forward(x, torch::zeros({1}), torch::full({1, 2}, 3600.0),
                        torch::full({1, 2}, 40.0), context);
}

// Whoever sees the whole sphere does what "timm" does.
TEST(HealDA, DiskBackendFromAConfiguration) {
  torch::manual_seed(2);
  for (const bool regional : {false, true}) {
    auto config = small_config("timm");
    if (regional) config["region"] = std::vector<int64_t>{1, 2, 5, 30};
    HealDA dense(HealDAConfig::from_json(config));
    {
      torch::NoGradGuard no_grad;
      for (auto& p : dense->parameters()) p.normal_(0, 0.3);
    }
    const auto with = [&](const std::string& backend) {
      config["attention_backend"] = backend;
      HealDA model(HealDAConfig::from_json(config));
      EXPECT_TRUE(set_state(*model, state_copy(*dense)));
      EXPECT_EQ(HealDAConfig::from_json(model->config().to_json()), model->config());
      return model;
    };
    const auto x = torch::randn({1, 2, 2, dense->pixels_in()});
    auto all = with("disk:180"), near_by = with("disk:30");
    const auto y = analysis(dense, x);
    EXPECT_TRUE(near(analysis(all, x), y, kModel));
    const auto local = analysis(near_by, x);
    EXPECT_FALSE(near(local, y, 1e-3));
    local.sum().backward();
    for (const auto& entry : near_by->named_parameters())
      EXPECT_TRUE(entry.value().grad().defined()) << entry.key();
    EXPECT_TRUE(
        refuses([&] { with("disk-nest:30"); }, "tokens in pad_xy order", ErrorKind::unsupported));
    EXPECT_TRUE(refuses([&] { with("disk:0"); }, "above 0 up to 180 degrees"));
  }
}

}  // namespace
}  // namespace halcyon::test
