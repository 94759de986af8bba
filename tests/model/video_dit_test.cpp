// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/video_dit.h"

#include <cmath>

#include "tests/nn/golden_module.h"
#include "tests/support/compare.h"
#include "tests/support/paths.h"

namespace halcyon::test {
namespace {

std::shared_ptr<HEALPixPatchTokenizerImpl> tokenizer(int64_t width, int64_t fine, int64_t coarse,
                                                     bool separate = true) {
  return std::make_shared<HEALPixPatchTokenizerImpl>(
      HEALPixPatchTokenizerOptions{2, width, fine, coarse, separate});
}

std::shared_ptr<HEALPixPatchDetokenizerImpl> detokenizer(int64_t width, int64_t fine,
                                                         int64_t coarse, int64_t condition) {
  HEALPixPatchDetokenizerOptions options{width, 3, coarse, fine};
  options.condition_dim = condition;
  return std::make_shared<HEALPixPatchDetokenizerImpl>(options);
}

VideoDiTOptions small() {
  VideoDiTOptions options;
  options.hidden_size = 8;
  options.num_heads = 2;
  options.num_layers = 3;
  options.emb_channels = 6;
  options.noise_channels = 4;
  return options;
}

struct Inputs {
  at::Tensor x = torch::randn({2, 2, 2, 48}), t = torch::rand({2});
  CalendarKwargs times{torch::rand({2, 2}) * 80000, torch::rand({2, 2}) * 300};
};

VideoDiT small_dit(const VideoDiTOptions& options) {
  return VideoDiT(tokenizer(8, 1, 0), detokenizer(8, 1, 0, options.emb_channels.value_or(32)),
                  options);
}

at::Tensor run(VideoDiT& dit, const Inputs& in, const std::optional<at::Tensor>& condition = {}) {
  return dit->forward(in.x, in.t, condition, {}, {}, {}, in.times);
}

TEST(VideoDiT, Golden) {
  HALCYON_NEEDS_SHARED();
  const auto g = golden("healda/video_dit_tiny");
  const auto& c = g.config;
  VideoDiTOptions options;
  options.hidden_size = c["hidden_size"];
  options.num_heads = c["num_heads"];
  options.num_layers = c["num_layers"];
  options.emb_channels = c["emb_channels"].get<int64_t>();
  options.noise_channels = c["noise_channels"].get<int64_t>();
  options.temporal_attention = true;
  options.is_causal = true;
  VideoDiT dit(
      tokenizer(options.hidden_size, c["level_fine"], c["level_coarse"]),
      detokenizer(options.hidden_size, c["level_fine"], c["level_coarse"], c["emb_channels"]),
      options);
  check_golden(
      g, *dit,
      [&](const Named& in) {
        return Named{
            {"y", dit->forward(in.at("x"), in.at("t"), {}, {}, {}, {},
                               CalendarKwargs{in.at("second_of_day"), in.at("day_of_year")})}};
      },
      kModelGolden);
}

TEST(VideoDiT, Initialisation) {
  auto options = small();
  options.temporal_attention = true;
  auto dit = small_dit(options);
  const auto p = dit->named_parameters();
  // Xavier's bound of a (24, 8) matrix, reached within a tenth
  const auto& qkv = p["blocks.1.attention.attn_op.qkv.weight"];
  const double bound = std::sqrt(6.0 / 32), largest = qkv.abs().max().item<double>();
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.9 * bound);
  for (const auto& entry : p) {
    const double size = entry.value().abs().max().item<double>();
    const bool linear_bias =
        entry.key().ends_with("bias") && entry.key().find("conv") == std::string::npos;
    if (linear_bias || entry.key().find("modulation") != std::string::npos)
      EXPECT_EQ(size, 0.0) << entry.key();
    else
      EXPECT_GT(size, 0.0) << entry.key();
  }
  options.adaln_zero_init = false;
  dit = small_dit(options);
  const auto q = dit->named_parameters();
  EXPECT_GT(q["blocks.0.norm1_modulation.modulation.1.weight"].abs().max().item<double>(), 0.1);
  EXPECT_EQ(q["detokenizer.adaptive_modulation.1.weight"].abs().max().item<double>(), 0.0);
  options.dit_initialization = false;
  dit = small_dit(options);
  EXPECT_GT(
      dit->named_parameters()["blocks.0.attention.attn_op.qkv.bias"].abs().max().item<double>(),
      0.0);
}

TEST(VideoDiT, DropPathRates) {
  auto options = small();
  options.drop_path = 1.0;  // rates 0, 1/2, 1: the last block is cut off in training
  options.adaln_zero_init = false;
  auto dit = small_dit(options);
  {
    torch::NoGradGuard no_grad;
    for (auto& entry : dit->blocks()[1]->named_parameters()) entry.value().zero_();
  }
  const Inputs in;
  dit->train();
  const auto first = run(dit, in);
  dit->eval();
  EXPECT_FALSE(near(run(dit, in), first, 1e-4));
  {
    torch::NoGradGuard no_grad;
    for (auto& entry : dit->blocks()[2]->named_parameters()) entry.value().zero_();
  }
  EXPECT_TRUE(near(run(dit, in), first, 1e-6));
  options.drop_path_rates = std::vector<double>{0, 0};
  EXPECT_TRUE(refuses([&] { small_dit(options); }, "3 drop_path_rates, one a block, got 2"));
  options.drop_path_rates = std::vector<double>{0, 0, 2};
  EXPECT_TRUE(refuses([&] { small_dit(options); }, "drop_path between 0 and 1, got 2"));
}

TEST(VideoDiT, EveryEmbedder) {
  const Inputs in;
  for (const std::string name : {"edm", "dit", "zero"}) {
    auto options = small();
    options.conditioning_embedder = name;
    options.adaln_zero_init = false;
    options.condition_dim = name == "zero" ? 0 : 3;
    const int64_t width = name == "edm" ? 6 : name == "dit" ? 8 : 0;
    VideoDiT dit(tokenizer(8, 1, 0), detokenizer(8, 1, 0, width), options);
    const auto condition =
        name == "zero" ? std::optional<at::Tensor>{} : std::optional(torch::randn({2, 3}));
    const auto y = run(dit, in, condition);
    EXPECT_EQ(y.sizes(), at::IntArrayRef({2, 3, 2, 48})) << name;
    y.sum().backward();
    for (const auto& entry : dit->named_parameters())
      EXPECT_TRUE(entry.value().grad().defined()) << name << " " << entry.key();
    dit->to(torch::kBFloat16);
    Inputs low;
    low.x = in.x.to(at::kBFloat16);
    EXPECT_EQ(run(dit, low, condition ? std::optional(condition->to(at::kBFloat16)) : condition)
                  .scalar_type(),
              at::kBFloat16)
        << name;
  }
}

TEST(VideoDiT, SharesRotaryTables) {
  auto options = small();
  options.temporal_attention = true;
  options.max_seq_len = 2;
  auto dit = small_dit(options);
  EXPECT_EQ(dit->named_buffers().size(), 1u);
  EXPECT_TRUE(dit->named_buffers().contains("conditioning_embedder.map_noise.freqs"));
  Inputs in;
  run(dit, in);
  in.x = torch::randn({2, 2, 3, 48});
  in.times = {torch::rand({2, 3}), torch::rand({2, 3})};
  EXPECT_TRUE(refuses([&] { run(dit, in); }, "max_seq_len = 2 frames, got 3"));
}

TEST(VideoDiT, OtherTokenizers) {
  struct Flat : TokenizerBase {
    at::Tensor tokenize(const at::Tensor& x, const std::any& kwargs) override {
      return x.permute({0, 2, 3, 1}) * std::any_cast<double>(kwargs);
    }
  };
  struct Sum : DetokenizerBase {
    at::Tensor detokenize(const at::Tensor& h, const at::Tensor& c) override {
      return h.sum(-1) + c.sum();
    }
  };
  auto options = small();
  options.hidden_size = 2;
  options.num_heads = 1;
  VideoDiT dit(std::make_shared<Flat>(), std::make_shared<Sum>(), options);
  const auto x = torch::randn({2, 2, 3, 5});
  const auto y = dit->forward(x, torch::zeros({2}), {}, {}, {}, {}, 2.0);
  // blocks start as identities; the embedder's bias is zero, its weights are not
  const auto c = y - 2 * x.sum(1);
  EXPECT_TRUE(near(c, c.flatten()[0].expand_as(c), 1e-4));
}

TEST(VideoDiT, Refuses) {
  auto options = small();
  auto dit = small_dit(options);
  const Inputs in;
  EXPECT_TRUE(refuses([&] { dit->forward(in.x[0], in.t); }, "x (B, C, T, X)"));
  EXPECT_TRUE(refuses([&] { dit->forward(in.x, torch::zeros({3})); }, "t (2,)"));
  EXPECT_TRUE(refuses([&] { dit->forward(in.x, in.t, torch::zeros({2, 4})); }, "condition (2, 0)"));
  EXPECT_TRUE(refuses([&] { dit->forward(in.x, in.t); }, "tokenizer_kwargs"));
  VideoDiT flat(tokenizer(8, 1, 0, false), detokenizer(8, 1, 0, 6), options);
  EXPECT_TRUE(refuses([&] { run(flat, in); }, "the tokenizer's output (B, T, X, C)"));
  options.conditioning_embedder = "sdxl";
  EXPECT_TRUE(refuses([&] { small_dit(options); }, "got \"sdxl\""));
  options = small();
  options.num_layers = 0;
  EXPECT_TRUE(refuses([&] { small_dit(options); }, "num_layers of at least 1"));
  options = small();
  options.temporal_attention = true;
  options.hidden_size = 12;
  options.num_heads = 4;
  EXPECT_TRUE(refuses([&] { small_dit(options); }, "even head width for rope"));
  EXPECT_TRUE(refuses([&] { VideoDiT(nullptr, detokenizer(8, 1, 0, 6), small()); }, "a tokenizer"));
}

}  // namespace
}  // namespace halcyon::test
