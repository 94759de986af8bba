// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/convert_layers.h"

#include <gtest/gtest.h>
#include <torch/nn.h>

#include <sstream>

#include "halcyon/base/error.h"
#include "halcyon/parallel/convert.h"
#include "tests/support/compare.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

namespace nn = torch::nn;

// Statistics of all ranks' values, also as the mean of all batches; then used.
TEST(ConvertedLayers, BatchNormsTrainAndEvaluate) {
  for (const auto momentum : {std::optional(0.2), std::optional<double>()}) {
    const auto make = [&] {
      return nn::Sequential(nn::BatchNorm2d(nn::BatchNorm2dOptions(3).momentum(momentum)),
                            nn::BatchNorm2d(nn::BatchNorm2dOptions(3).track_running_stats(false)));
    };
    auto whole = make();
    whole->to(at::kDouble);
    const auto x = at::randn({3, 2, 3, 7, 4}, at::kDouble) * 3 + 5;
    for (int64_t i = 0; i < 3; ++i) whole->forward(x[i]);
    whole->eval();
    const auto y = whole->forward(x[0]);
    std::vector<at::Tensor> parts(3);
    test::on_ranks(3, [&](const Group& group) {
      auto model = convert(make(), group).first;
      model->to(at::kDouble);
      const auto mine = x.split_with_sizes({5, 0, 2}, 3)[group.rank()];
      for (int64_t i = 0; i < 3; ++i) model->forward(mine[i]);
      model->eval();
      parts[group.rank()] = model->forward(mine[0]);
      for (const auto& one : whole->named_buffers()) {
        EXPECT_TRUE(at::allclose(model->named_buffers()[one.key()], one.value(), 1e-12, 1e-12))
            << one.key();
      }
    });
    EXPECT_TRUE(test::near(at::cat(parts, 2), y, test::kDouble));
  }
}

std::string refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::argument);
    return error.what();
  }
  return "none";
}

// On every rank with the same text, after which the group is of use.
TEST(ConvertedLayers, RefusesOnEveryRank) {
  using nn::Conv2dOptions;
  const std::vector<std::pair<std::function<nn::AnyModule()>, std::string>> wrong = {
      {[] { return nn::AnyModule(nn::Conv2d(2, 2, 9)); }, "expected a kernel that fits"},
      {[] {
         return nn::AnyModule(
             nn::Conv2d(Conv2dOptions(2, 2, 3).padding(1).padding_mode(torch::kReplicate)));
       },
       "got \"replicate\""},
      {[] {
         return nn::AnyModule(nn::ConvTranspose2d(
             nn::ConvTranspose2dOptions(2, 2, 3).padding_mode(torch::kCircular)));
       },
       "expected a transposed convolution with padding_mode \"zeros\", got \"circular\""},
      {[] { return nn::AnyModule(nn::MaxPool2d(7)); }, "[pool] expected"},
      {[] {
         return nn::AnyModule(DomainParallelAvgPool2d(nn::AvgPool2dOptions(2).divisor_override(3)));
       },
       "[convert] expected an average pooling without divisor_override"},
      {[] { return nn::AnyModule(nn::BatchNorm3d(2)); },
       "[convert] expected x of 5 axes for BatchNorm3d, got"},
      {[] {
         return nn::AnyModule(nn::LayerNorm(nn::LayerNormOptions({5, 4})));
       },
       "[layer_norm] expected"},
  };
  for (const auto& [make, text] : wrong) {
    std::vector<std::string> messages(3);
    test::on_ranks(3, [&](const Group& group) {
      const auto x = at::ones({1, 2, 2, 4});
      auto model = convert(make(), group).first;
      messages[group.rank()] = refusal([&] { model.forward(x); });
      auto right = convert(nn::AnyModule(nn::AvgPool2d(2)), group).first;
      EXPECT_EQ(right.forward(x).sum().item<float>(), 4);
    });
    EXPECT_NE(messages[0].find(text), std::string::npos) << messages[0];
    for (const auto& message : messages) EXPECT_EQ(message, messages[0]);
  }
  const std::string empty = "[convert] expected a module of torch::nn, got an empty holder";
  EXPECT_EQ(refusal([] { convert(nn::AnyModule()); }), empty);
  EXPECT_EQ(refusal([] { convert(nn::Sequential(nullptr)); }), empty);
  EXPECT_EQ(refusal([] { convert(nn::Conv2d(nullptr)); }), empty);
}

// Of a converted layer, list and member of a class that can be copied.
struct CopiedImpl : nn::Cloneable<CopiedImpl> {
  CopiedImpl() { CopiedImpl::reset(); }
  void reset() override {
    conv = register_module("conv", DomainParallelConv2d(nn::Conv2dOptions(2, 2, 3).padding(1)));
    list = register_module(
        "list", nn::Sequential(nn::AvgPool2d(nn::AvgPool2dOptions(3).stride(1).padding(1))));
  }
  at::Tensor forward(const at::Tensor& x) { return list->forward(conv->forward(x)); }
  DomainParallelConv2d conv{nullptr};
  nn::Sequential list{nullptr};
};
TORCH_MODULE(Copied);

TEST(ConvertedLayers, CopiesSpeakOfTheSameGroup) {
  test::on_ranks(2, [](const Group& group) {
    const Copied model;
    model->parameters()[1].set_requires_grad(false);
    convert(model, group);
    const auto copy = std::dynamic_pointer_cast<CopiedImpl>(model.ptr()->clone());
    const auto x = at::arange(40).to(at::kFloat).view({1, 2, 5, 4}) * (1 + group.rank());
    const auto wanted = model.ptr()->forward(x);
    EXPECT_TRUE(copy->forward(x).equal(wanted));
    EXPECT_NE(copy->conv->layer().weight.data_ptr(), model->conv->layer().weight.data_ptr());
    {
      const torch::NoGradGuard no_grad;
      for (auto& one : copy->parameters()) one.zero_();
    }
    EXPECT_EQ(copy->forward(x).count_nonzero().item<int64_t>(), 0);
    EXPECT_TRUE(model.ptr()->forward(x).equal(wanted));
    EXPECT_TRUE(copy->parameters()[0].requires_grad());
    EXPECT_FALSE(copy->parameters()[1].requires_grad());
  });
}

TEST(ConvertedLayers, LayersFollowTheDefaultGroupAtFirst) {
  torch::manual_seed(0);
  DomainParallelConv1d conv(nn::Conv1dOptions(2, 3, 3).padding(1));
  DomainParallelMaxPool2d pool(2);
  const auto& layer = conv->layer();
  const auto x = at::randn({2, 2, 6});
  EXPECT_FALSE(conv->is_sharded());
  EXPECT_TRUE(test::near(conv->forward(x), at::conv1d(x, layer.weight, layer.bias, 1, 1), 1e-6));
  EXPECT_TRUE(test::identical(pool->forward(x), at::max_pool2d(x, 2)));
}

TEST(ConvertedLayers, PrintsItsLayers) {
  const DomainParallelConv2d conv(nn::Conv2dOptions(2, 3, 3).padding(1));
  std::ostringstream text;
  text << conv;
  convert(conv);
  text << '\n' << conv;
  EXPECT_EQ(text.str(),
            "DomainParallelConv2d(2, 3, kernel_size=[3, 3], stride=[1, 1], padding=[1, 1])\n"
            "DomainParallelConv2d(2, 3, kernel_size=[3, 3], stride=[1, 1], padding=[1, 1], sharded "
            "dim=-2)");
}

}  // namespace
}  // namespace halcyon::parallel
