// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/checkpoint.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "halcyon/base/files.h"
#include "halcyon/base/safetensors.h"
#include "tests/model/checkpoint_files.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/paths.h"

namespace halcyon {
namespace {

using test::identical;
using testing::AllOf;
using testing::HasSubstr;

HealDAConfig small_config() {
  HealDAConfig c;
  c.out_channels = 3;
  c.hidden_size = 16;
  c.num_layers = c.num_heads = c.time_length = 2;
  c.level_in = 2;
  c.level_model = 1;
  c.condition_embed_dim = c.noise_channels = c.obs_token_dim = 8;
  c.obs_meta_dim = 5;
  c.obs_film_hidden_dim = 16;
  c.pixel_attn_n_q_heads = 32;
  c.pixel_attn_head_dim = 4;
  return c;
}

class CheckpointTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "model.safetensors"; }
  // Saves a small model with its tensors and configuration changed, and loads it.
  template <class Change>
  std::string refused(Change&& change) {
    const HealDA model(small_config());
    TensorFile content{state_dict(*model), {}};
    nlohmann::json config = model->config().to_json();
    change(content.tensors, config);
    checkpoint::write_own_metadata(config.dump(), content.metadata);
    write_safetensors(path(), content);
    return test::refusal([&] { load_checkpoint(path()); });
  }
  test::TemporaryFolder folder_;
};

void expect_equal(const HealDA& actual, const HealDA& expected) {
  EXPECT_EQ(actual->config(), expected->config());
  const auto state = state_dict(*actual), other = state_dict(*expected);
  ASSERT_EQ(state.size(), other.size());
  for (const auto& [name, tensor] : other) EXPECT_TRUE(identical(state.at(name), tensor)) << name;
}

TEST_F(CheckpointTest, RoundTripIsExact) {
  auto regional = small_config(), affine = small_config(), unbiased = small_config();
  regional.region = {3, 4, 9, 40};
  affine.qk_norm_affine = affine.use_rope = true;
  affine.condition_dim = 4;
  affine.drop_path = 1.0 / 3;
  affine.temporal_causal_window = 2;
  unbiased.pixel_attn_use_proj_bias = false;
  for (const auto& config : {small_config(), regional, affine, unbiased}) {
    const HealDA model(config);
    save_checkpoint(model, path(), {{"note", "kept"}});
    HealDA back = load_checkpoint(path());
    expect_equal(back, model);
    EXPECT_FALSE(back->is_training());
    for (const auto& item : back->named_parameters()) EXPECT_TRUE(item.value().requires_grad());
    EXPECT_EQ(read_checkpoint(path()).metadata.at("note"), "kept");
    save_checkpoint(back, path());  // over the file that its weights came from
    expect_equal(load_checkpoint(path()), model);
    expect_equal(back, model);
  }
}

TEST_F(CheckpointTest, TypesAreKept) {
  HealDA model(small_config());
  model->to(at::kBFloat16);
  save_checkpoint(model, path());
  const HealDA back = load_checkpoint(path());
  EXPECT_EQ(back->parameters()[0].scalar_type(), at::kBFloat16);
  expect_equal(back, model);
}

// The keys that the published class saves with pixel_attn_use_proj_bias=False.
TEST_F(CheckpointTest, CrossAttentionWithoutBiases) {
  const auto cross = [](const HealDA& model) {
    std::vector<std::string> keys;
    for (const auto& [name, tensor] : state_dict(*model)) {
      const std::string block = "dit.blocks.1.cross_attention.";
      if (name.starts_with(block)) keys.push_back(name.substr(block.size()));
    }
    return keys;
  };
  const std::vector<std::string> weights{"k_proj.weight", "out_proj.weight", "q_proj.weight",
                                         "v_proj.weight"};
  auto config = small_config();
  config.pixel_attn_use_proj_bias = false;
  EXPECT_EQ(cross(HealDA(config)), weights);
  const auto message = refused([](auto& tensors, auto& changed) {
    for (const char* layer : {"q_proj", "v_proj", "out_proj"})
      for (int block = 0; block < 2; ++block)
        tensors.erase(fmt::format("dit.blocks.{}.cross_attention.{}.bias", block, layer));
    changed["pixel_attn_use_proj_bias"] = false;
  });
  EXPECT_EQ(message, "");
  EXPECT_EQ(cross(load_checkpoint(path())), weights);
}

TEST_F(CheckpointTest, LoadsTheGoldenCheckpoint) {
  HALCYON_NEEDS_SHARED();
  const auto params = test::golden("healda/healda_tiny").under("param.");
  const HealDA model = load_checkpoint(test::shared_dir() / "golden/healda/healda_tiny.mdlus");
  EXPECT_EQ(model->config().num_layers, 3);
  EXPECT_EQ(model->config().obs_film_hidden_dim, 32);
  const auto state = state_dict(*model);
  ASSERT_EQ(state.size(), params.size());
  for (const auto& [name, tensor] : params) EXPECT_TRUE(identical(state.at(name), tensor)) << name;
  save_checkpoint(model, path());
  expect_equal(load_checkpoint(path()), model);
}

// In place, as cp and rsync --inplace do.
TEST_F(CheckpointTest, TheModelKeepsItsWeightsWhateverHappensToTheFile) {
  const HealDA model(small_config()), other(small_config());
  save_checkpoint(other, folder_ / "other.safetensors");
  const auto over = read_text(folder_ / "other.safetensors");
  for (const auto& bytes : {over, std::string("short"), std::string(), over + over}) {
    std::filesystem::remove(path());
    save_checkpoint(model, path());
    const HealDA loaded = load_checkpoint(path());
    std::ofstream(path(), std::ios::binary) << bytes;
    expect_equal(loaded, model);
    std::filesystem::remove(path());
    expect_equal(loaded, model);
  }
}

TEST_F(CheckpointTest, KeysOfAWrappedModelNameTheWrapper) {
  EXPECT_THAT(refused([](auto& tensors, auto&) {
                std::map<std::string, at::Tensor> wrapped;
                for (const auto& [name, tensor] : tensors) wrapped["module." + name] = tensor;
                tensors = wrapped;
              }),
              AllOf(HasSubstr("keys have the prefix \"module.\""), HasSubstr("model.safetensors"),
                    testing::Not(HasSubstr("missing"))));
}

TEST_F(CheckpointTest, ReadsOlderFiles) {
  const auto message = refused([](auto& tensors, auto&) {
    tensors.erase("dit.conditioning_embedder.map_noise.freqs");
    tensors["dit.rope_cos"] = at::ones({100, 8});
    tensors["device_buffer"] = at::empty({0});
  });
  EXPECT_EQ(message, "");
  const std::string key = "dit.conditioning_embedder.map_noise.freqs";
  const auto state = state_dict(*load_checkpoint(path()));
  EXPECT_TRUE(identical(state.at(key), state_dict(*HealDA(small_config())).at(key)));
  EXPECT_FALSE(state.contains("dit.rope_cos"));
}

TEST_F(CheckpointTest, OneErrorNamesEveryBadKey) {
  const auto message = refused([](auto& tensors, auto&) {
    tensors.erase("dit.blocks.1.linear.layers.0.bias");
    tensors["extra"] = at::ones({1});
    tensors["dit.tokenizer.conv.bias"] = at::ones({3});
  });
  EXPECT_THAT(message, AllOf(HasSubstr("model.safetensors"),
                             HasSubstr("1 missing key: dit.blocks.1.linear.layers.0.bias"),
                             HasSubstr("1 unexpected key: extra"),
                             HasSubstr("dit.tokenizer.conv.bias (expected (16), got (3))")));
}

TEST_F(CheckpointTest, ImpossibleConfigurationsAreRefusedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const auto refused_with = [&](const char* key, const nlohmann::json& value) {
    return refused([&](auto&, auto& config) { config[key] = value; });
  };
  constexpr int64_t kHuge = int64_t{1} << 40;
  EXPECT_THAT(refused_with("num_layers", kHuge), HasSubstr("announces num_layers = 1099511627776"));
  EXPECT_THAT(refused_with("num_layers", 1000), HasSubstr("announces 1000 layers"));
  EXPECT_THAT(refused_with("num_layers", 3), HasSubstr("missing keys: dit.blocks.2."));
  EXPECT_THAT(refused_with("num_layers", 0), HasSubstr("num_layers"));
  EXPECT_THAT(refused_with("level_in", 29), HasSubstr("for fields at level 29"));
  EXPECT_THAT(refused_with("level_in", 30), HasSubstr("impossible levels"));
  EXPECT_THAT(refused_with("level_model", 3), HasSubstr("impossible levels"));
  EXPECT_THAT(refused_with("max_seq_len", 1 << 19), HasSubstr("rotary tables"));
  const auto arguments = small_config().to_json();
  for (const auto& [key, value] : arguments.items()) {
    if (!value.is_number()) continue;
    for (const auto& lie : {nlohmann::json(-1), nlohmann::json(INT64_MAX), nlohmann::json("x")})
      EXPECT_THAT(refused_with(key.c_str(), lie), HasSubstr("model.safetensors")) << key << lie;
  }
  EXPECT_THAT(refused_with("mlp_ratio", 1e300), HasSubstr("model.safetensors"));
  EXPECT_THAT(refused_with("region", {5, 4}), HasSubstr("model.safetensors"));
  EXPECT_THAT(refused_with("hiden_size", 16), HasSubstr("hidden_size"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST_F(CheckpointTest, SavesOnlySafetensors) {
  const HealDA model(small_config());
  EXPECT_THROW(save_checkpoint(model, folder_ / "model.mdlus"), Error);
  try {
    save_checkpoint(model, folder_ / "no/such/folder.safetensors");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::output);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

// The table of the production model, without its 6 GB.
TEST_F(CheckpointTest, ProductionModelHas1506070474Parameters) {
  Checkpoint production;
  production.config = nlohmann::json::object();
  const auto tensor = [&](const std::string& name, std::vector<int64_t> sizes) {
    production.tensors[name] = {at::kFloat, std::move(sizes), nullptr};
  };
  const auto layer = [&](const std::string& name, const std::vector<int64_t>& sizes) {
    tensor(name + ".weight", sizes);
    tensor(name + ".bias", {sizes[0]});
  };
  tensor("obs_tokenizer.embed_table.weight", {1024, 4});
  tensor("obs_tokenizer.channel_embedding.weight", {1024, 16});
  tensor("obs_tokenizer.platform_embedding.weight", {1024, 8});
  layer("obs_tokenizer.cond_mlp.0", {64, 78});
  layer("obs_tokenizer.cond_mlp.1", {64});
  layer("obs_tokenizer.cond_mlp.3", {64, 64});
  tensor("dit.tokenizer.pos_embed", {12288, 1536});
  layer("dit.tokenizer.conv", {1536, 2, 2, 2});
  layer("dit.detokenizer.adaptive_modulation.1", {3072, 128});
  tensor("dit.detokenizer.conv_t.weight", {1536, 74, 2, 2});
  tensor("dit.detokenizer.conv_t.bias", {74});
  tensor("dit.conditioning_embedder.map_noise.freqs", {64});
  layer("dit.conditioning_embedder.map_layer0", {128, 128});
  layer("dit.conditioning_embedder.map_layer1", {128, 128});
  for (int i = 0; i < 32; ++i) {
    const auto block = fmt::format("dit.blocks.{}.", i);
    layer(block + "attention.attn_op.qkv", {4608, 1536});
    layer(block + "attention.attn_op.proj", {1536, 1536});
    layer(block + "norm1_modulation.modulation.1", {9216, 128});
    layer(block + "linear.layers.0", {6144, 1536});
    layer(block + "linear.layers.2", {1536, 6144});
    layer(block + "temporal_attention.qkv", {4608, 1536});
    layer(block + "temporal_attention.proj", {1536, 1536});
    layer(block + "temporal_attn_modulation.modulation.1", {4608, 128});
    layer(block + "cross_attention.q_proj", {2048, 1536});
    tensor(block + "cross_attention.k_proj.weight", {64, 32});
    layer(block + "cross_attention.v_proj", {64, 32});
    layer(block + "cross_attention.out_proj", {1536, 2048});
    layer(block + "cross_attn_modulation.modulation.1", {4608, 128});
  }
  EXPECT_EQ(production.parameter_count(), 1'506'070'474);
  EXPECT_EQ(test::refusal([&] { check_complete(production); }), "");
  production.tensors.erase("dit.blocks.31.linear.layers.2.bias");
  EXPECT_THAT(test::refusal([&] { check_complete(production); }),
              HasSubstr("missing key: dit.blocks.31.linear.layers.2.bias"));
}

}  // namespace
}  // namespace halcyon
