// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/state_dict.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn.h>

#include <functional>

#include "tests/model/checkpoint_files.h"
#include "tests/support/compare.h"

namespace halcyon {
namespace {

using test::identical;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

struct SmallImpl : torch::nn::Module {
  SmallImpl() {
    linear = register_module("linear", torch::nn::Linear(4, 3));
    plain = register_module("plain", torch::nn::Linear(torch::nn::LinearOptions(2, 2).bias(false)));
    auto noise = register_module("map_noise", std::make_shared<torch::nn::Module>("noise"));
    noise->register_buffer("freqs", at::arange(6).to(at::kFloat));
    count = register_buffer("count", at::zeros({}, at::kLong));
  }
  torch::nn::Linear linear{nullptr}, plain{nullptr};
  at::Tensor count;
};
TORCH_MODULE(Small);

std::map<std::string, at::Tensor> other_state() {
  return {{"linear.weight", at::arange(12).reshape({3, 4}).to(at::kFloat)},
          {"linear.bias", at::ones({3})},
          {"plain.weight", at::eye(2)},
          {"map_noise.freqs", at::full({6}, 0.5f)},
          {"count", at::scalar_tensor(7, at::kLong)}};
}

TEST(StateDict, NamesParametersAndBuffersAndSharesThem) {
  Small module;
  const auto state = state_dict(*module);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("count", "linear.bias", "linear.weight", "map_noise.freqs",
                                 "plain.weight"));
  state.at("linear.bias").fill_(3);
  EXPECT_TRUE(identical(module->linear->bias.detach(), at::full({3}, 3.0f)));
}

TEST(StateDict, CopiesIntoTheTensorsThatAreThere) {
  Small module;
  const auto* before = module->linear->weight.const_data_ptr();
  const auto report = load_state_dict(*module, other_state());
  EXPECT_TRUE(report.missing.empty() && report.unexpected.empty() && report.retired.empty());
  for (const auto& [name, tensor] : state_dict(*module))
    EXPECT_TRUE(identical(tensor, other_state().at(name))) << name;
  EXPECT_EQ(module->linear->weight.const_data_ptr(), before);
  EXPECT_TRUE(module->linear->weight.requires_grad());
}

TEST(StateDict, AssignTakesTensorsAsTheyAre) {
  Small module;
  auto state = other_state();
  state["linear.weight"] = state["linear.weight"].to(at::kBFloat16);
  state["plain.weight"] = at::arange(4).to(at::kFloat).reshape({2, 2}).t();  // strided
  const at::Tensor held = module->linear->weight;
  load_state_dict(*module, state, true, LoadMode::assign);
  EXPECT_EQ(held.const_data_ptr(), state["linear.weight"].const_data_ptr());
  EXPECT_EQ(held.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(held.requires_grad());
  EXPECT_TRUE(module->plain->weight.is_contiguous());
  EXPECT_TRUE(identical(module->plain->weight.detach(), state["plain.weight"]));
  EXPECT_EQ(module->count.item<int64_t>(), 7);
}

TEST(StateDict, ConvertsOnlyBetweenFloatingTypes) {
  Small module;
  auto state = other_state();
  state["linear.bias"] = at::full({3}, 1.0 / 3, at::kDouble);
  load_state_dict(*module, state);
  EXPECT_TRUE(identical(module->linear->bias.detach(), at::full({3}, 1.0f / 3)));
  state["linear.bias"] = at::ones({3}, at::kInt);
  state["count"] = at::scalar_tensor(7.5);
  EXPECT_THAT(
      test::refusal([&] { load_state_dict(*module, state); }),
      AllOf(HasSubstr("2 mistyped keys"), HasSubstr("linear.bias (expected Float, got Int)"),
            HasSubstr("count (expected Long, got Float)")));
}

TEST(StateDict, OneErrorNamesEveryBadKeyAndChangesNothing) {
  Small module;
  const auto before = module->linear->bias.detach().clone();
  auto state = other_state();
  state.erase("linear.weight");
  state.erase("count");
  state["plain.weight"] = at::ones({2, 3});
  state["extra.weight"] = at::ones({1});
  state["plain.bias"] = at::ones({2});
  const auto message = test::refusal(
      [&] { load_state_dict(*module, state, true, LoadMode::copy, "x.safetensors"); });
  EXPECT_EQ(message,
            "[load_state_dict] x.safetensors: 2 missing keys: count, linear.weight; 2 unexpected "
            "keys: extra.weight, plain.bias; 1 misshapen key: plain.weight (expected (2, 2), got "
            "(2, 3))");
  EXPECT_TRUE(identical(module->linear->bias.detach(), before));

  EXPECT_THAT(test::refusal([&] { load_state_dict(*module, state, /*strict=*/false); }),
              AllOf(HasSubstr("misshapen"), testing::Not(HasSubstr("missing"))));
  state["plain.weight"] = at::eye(2);
  const auto report = load_state_dict(*module, state, /*strict=*/false);
  EXPECT_THAT(report.missing, ElementsAre("count", "linear.weight"));
  EXPECT_THAT(report.unexpected, ElementsAre("extra.weight", "plain.bias"));
  EXPECT_TRUE(identical(module->linear->bias.detach(), at::ones({3})));
}

TEST(StateDict, AWrappersPrefixIsNamed) {
  Small module;
  const auto refused_as = [&](const std::function<std::string(std::string)>& rename) {
    std::map<std::string, at::Tensor> state;
    for (const auto& [name, tensor] : other_state()) state[rename(name)] = tensor;
    return test::refusal([&] { load_state_dict(*module, state); });
  };
  for (const std::string prefix :
       {"module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.net."}) {
    const auto message = refused_as([&](const auto& name) { return prefix + name; });
    EXPECT_THAT(message, AllOf(HasSubstr("5 keys have the prefix \"" + prefix + "\""),
                               HasSubstr("the model inside the wrapper"),
                               testing::Not(HasSubstr("linear.weight"))));
  }
  // the module inside is what was wrapped
  EXPECT_THAT(refused_as([](const auto& name) {
                return name.starts_with("linear.") ? "linear._orig_mod." + name.substr(7) : name;
              }),
              HasSubstr("2 keys have the prefix \"_orig_mod.\""));
  EXPECT_THAT(refused_as([](const auto& name) {
                return name.starts_with("linear.") ? name.substr(7) : name;
              }),
              HasSubstr("2 keys lack the prefix \"linear.\""));
  // what a prefix does not explain is still listed
  auto state = other_state();
  state["module.linear.weight"] = state["linear.weight"];
  state["n_averaged"] = at::ones({1});
  state.erase("linear.weight");
  EXPECT_THAT(test::refusal([&] { load_state_dict(*module, state); }),
              AllOf(HasSubstr("1 keys have the prefix \"module.\""),
                    HasSubstr("1 unexpected key: n_averaged")));
}

TEST(StateDict, ReadsOlderFiles) {
  Small module;
  auto state = other_state();
  state.erase("map_noise.freqs");
  const std::vector<std::string> retired = {"dit.rope_cos",
                                            "dit.tokenizer.calendar_embedding.lon",
                                            "dit.tokenizer.calendar_embedding.embed_day.freqs",
                                            "dit.blocks.0.rotary.sin",
                                            "device_buffer",
                                            "dit.device_buffer",
                                            "x.inv_freq"};
  for (const auto& key : retired) state[key] = at::ones({5});
  const auto report = load_state_dict(*module, state);
  EXPECT_THAT(report.retired, testing::UnorderedElementsAreArray(retired));
  EXPECT_TRUE(identical(state_dict(*module).at("map_noise.freqs"), at::arange(6).to(at::kFloat)));
  for (const char* key : {"linear.weight", "map_noise.freqs", "dit.tokenizer.pos_embed", "cos"})
    EXPECT_FALSE(is_retired_key(key)) << key;
}

TEST(StateDict, UndefinedTensorsAreRefused) {
  Small module;
  auto state = other_state();
  state["linear.bias"] = at::Tensor();
  EXPECT_THAT(test::refusal([&] { load_state_dict(*module, state); }),
              HasSubstr("linear.bias holds no tensor"));
}

}  // namespace
}  // namespace halcyon
