// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/convert.h"

#include <gtest/gtest.h>
#include <torch/nn.h>
#include <torch/serialize.h>

#include <sstream>

#include "halcyon/base/error.h"
#include "halcyon/parallel/reduce_gradients.h"
#include "tests/support/compare.h"
#include "tests/support/ranks.h"

// Models of torch::nn on a sharded axis against themselves in one process.
namespace halcyon::parallel {
namespace {

namespace nn = torch::nn;
using Names = std::map<std::string, std::string>;

// A Sequential inside a Sequential must be of a class with a forward of one signature.
struct BlockImpl : nn::SequentialImpl {
  using nn::SequentialImpl::SequentialImpl;
  at::Tensor forward(const at::Tensor& x) { return nn::SequentialImpl::forward(x); }
};
TORCH_MODULE(Block);

struct SkipImpl : nn::SequentialImpl {
  using nn::SequentialImpl::SequentialImpl;
  at::Tensor forward(const at::Tensor& x) { return x + nn::SequentialImpl::forward(x); }
};
TORCH_MODULE(Skip);

// A model with members of torch's classes, which cannot be replaced, and of ours.
struct NetImpl : nn::Module {
  NetImpl() {
    register_module("inward", inward);
    register_module("norm", norm);
    register_module("down", down);
    register_module("up", up);
    register_module("mix", mix);
    register_module("out", out);
  }
  at::Tensor forward(const at::Tensor& x) {
    auto y = norm->forward(inward->forward(x));
    y = up->at<DomainParallelUpsample::ContainedType>(0).forward(down->forward(y));
    return out->forward(mix->forward(torch::nn::functional::silu(y)));
  }
  DomainParallelConv2d inward{nn::Conv2dOptions(3, 4, 5).padding(torch::kSame)};
  DomainParallelBatchNorm2d norm{4};
  nn::Sequential down{nn::Conv2d(nn::Conv2dOptions(4, 4, 3).stride(2).padding(1)), nn::Tanh()};
  nn::ModuleList up{DomainParallelUpsample(
      nn::UpsampleOptions().scale_factor(std::vector<double>{2, 2}).mode(torch::kNearest))};
  nn::Conv2d mix{nn::Conv2dOptions(4, 4, 1)};
  DomainParallelConv2d out{nn::Conv2dOptions(4, 2, 3).padding(1)};
};
TORCH_MODULE(Net);

struct Case {
  const char* name;
  std::function<nn::AnyModule()> make;
  std::vector<int64_t> shape;
  int64_t dim = -2;
};

template <typename Mode>
nn::Upsample twice(int64_t axes, Mode mode, std::optional<bool> align_corners = {}) {
  return nn::Upsample(nn::UpsampleOptions()
                          .scale_factor(std::vector<double>(axes, 2))
                          .mode(mode)
                          .align_corners(align_corners));
}

// Every kind of layer in each number of spatial axes, and what torch's options can say.
std::vector<Case> cases() {
  using nn::Conv2dOptions;
  return {
      {"1-D",
       [] {
         return nn::AnyModule(
             Block(nn::Conv1d(nn::Conv1dOptions(2, 4, 3).padding(2).dilation(2)),
                   nn::BatchNorm1d(4), nn::GELU(),
                   nn::MaxPool1d(nn::MaxPool1dOptions(3).stride(1).padding(1)), nn::AvgPool1d(2),
                   nn::ConvTranspose1d(nn::ConvTranspose1dOptions(4, 3, 2).stride(2).bias(false)),
                   twice(1, torch::kLinear, false), nn::GroupNorm(3, 3),
                   nn::LayerNorm(nn::LayerNormOptions({3, 24}))));
       },
       {2, 2, 12},
       -1},
      {"2-D",
       [] {
         return nn::AnyModule(Block(
             nn::Conv2d(Conv2dOptions(2, 4, 3).padding(1).padding_mode(torch::kCircular)),
             nn::GroupNorm(nn::GroupNormOptions(2, 4).affine(false)),
             Skip(nn::Conv2d(Conv2dOptions(4, 4, 3).padding(torch::kSame).groups(2)),
                  nn::BatchNorm2d(4), Skip(nn::SiLU(), nn::Conv2d(4, 4, 1))),
             nn::MaxPool2d(nn::MaxPool2dOptions({2, 3}).ceil_mode(true)), nn::LeakyReLU(),
             nn::ConvTranspose2d(
                 nn::ConvTranspose2dOptions(4, 3, {4, 3}).stride(2).padding(1).output_padding(1)),
             nn::AvgPool2d(
                 nn::AvgPool2dOptions(3).stride({1, 2}).padding(1).count_include_pad(false)),
             nn::Upsample(nn::UpsampleOptions()
                              .size(std::vector<int64_t>{15, 5})
                              .mode(torch::kBilinear)
                              .align_corners(true)),
             nn::LayerNorm(nn::LayerNormOptions({3, 15, 5}))));
       },
       {2, 2, 13, 6}},
      {"2-D, the last axis",
       [] {
         return nn::AnyModule(Block(
             nn::Conv2d(Conv2dOptions(2, 3, {1, 5}).padding({0, 2}).padding_mode(torch::kReflect)),
             nn::BatchNorm2d(nn::BatchNorm2dOptions(3).affine(false)), twice(2, torch::kNearest),
             nn::Softplus(), nn::LayerNorm(nn::LayerNormOptions({24}))));
       },
       {2, 2, 3, 12},
       -1},
      {"3-D",
       [] {
         return nn::AnyModule(
             Block(nn::Conv3d(nn::Conv3dOptions(2, 4, 3).padding(1)), nn::BatchNorm3d(4),
                   nn::AvgPool3d(nn::AvgPool3dOptions(2)), nn::GroupNorm(2, 4),
                   nn::ConvTranspose3d(nn::ConvTranspose3dOptions(4, 2, 2).stride(2)),
                   nn::MaxPool3d(nn::MaxPool3dOptions(3).stride(1).padding(1).dilation(1)),
                   twice(3, torch::kTrilinear, false),
                   nn::LayerNorm(nn::LayerNormOptions({2, 8, 24, 8}))));
       },
       {1, 2, 4, 12, 4}},
      {"a class of its own", [] { return nn::AnyModule(Net()); }, {2, 3, 12, 6}},
      {"root",
       [] { return nn::AnyModule(nn::Conv2d(Conv2dOptions(3, 2, 3).stride(2).padding(1))); },
       {1, 3, 13, 6}},
  };
}

struct Result {
  at::Tensor y, gradient;
  std::map<std::string, at::Tensor> gradients, buffers;
};

Result run(nn::AnyModule& model, const at::Tensor& part, const Group& group) {
  const auto x = part.detach().clone().requires_grad_();
  const auto y = model.forward(x);
  (y.pow(3) + y.sin()).sum().backward();  // not what a norm makes constant
  const auto module = model.ptr();
  reduce_gradients(module->parameters(), group);
  Result result{y.detach(), x.grad(), {}, {}};
  for (const auto& one : module->named_parameters()) result.gradients[one.key()] = one->grad();
  for (const auto& one : module->named_buffers()) result.buffers[one.key()] = one.value();
  return result;
}

void copy_parameters(const nn::Module& from, const nn::Module& to) {
  const torch::NoGradGuard no_grad;
  const auto values = from.named_parameters();
  for (auto& one : to.named_parameters()) one->copy_(values[one.key()]);
}

void expect_near(const std::map<std::string, at::Tensor>& actual,
                 const std::map<std::string, at::Tensor>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    const auto atol = 1e-10 * std::max(1.0, tensor.abs().max().item().toDouble());
    EXPECT_TRUE(at::allclose(actual.at(name).to(at::kDouble), tensor.to(at::kDouble), 0, atol))
        << name;
  }
}

// Even, uneven, and with ranks that have no rows.
std::vector<std::vector<int64_t>> cuts(int64_t n) {
  return {{n},           {n - n / 2, n / 2}, {n - 1, 1},        {0, n},
          {4, 1, n - 5}, {1, 0, n - 1},      split_sizes(n, 4), {0, n - 5, 0, 5}};
}

void check(const Case& one) {
  torch::manual_seed(0);
  auto whole = one.make();
  whole.ptr()->to(at::kDouble);
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : whole.ptr()->parameters()) parameter += at::rand_like(parameter) / 2;
  }
  const auto x = at::randn(one.shape, at::kDouble);
  const auto expected = run(whole, x, Group::alone());
  for (const auto& sizes : cuts(x.size(one.dim))) {
    SCOPED_TRACE(testing::Message() << one.name << " cut into " << at::IntArrayRef(sizes));
    const auto parts = x.split_with_sizes(sizes, one.dim);
    std::vector<Result> results(sizes.size());
    test::on_ranks(static_cast<int64_t>(sizes.size()), [&](const Group& group) {
      const auto model = one.make();
      model.ptr()->to(at::kDouble);
      copy_parameters(*whole.ptr(), *model.ptr());
      auto converted = convert(model, group, one.dim).first;
      results[group.rank()] = run(converted, parts[group.rank()], group);
    });
    std::vector<at::Tensor> y, gradient;
    for (const auto& result : results) {
      y.push_back(result.y);
      gradient.push_back(result.gradient);
      expect_near(result.gradients, expected.gradients);
      expect_near(result.buffers, expected.buffers);
    }
    EXPECT_TRUE(test::near(at::cat(y, one.dim), expected.y, test::kDouble));
    EXPECT_TRUE(test::near(at::cat(gradient, one.dim), expected.gradient, test::kDouble));
  }
}

TEST(Convert, IsTheModelOfOneProcess) {
  for (const auto& one : cases()) check(one);
}

Names of_all(const nn::Module& module) {
  Names names;
  const auto note = [&](const auto& tensors) {
    for (const auto& one : tensors) {
      names[one.key()] = testing::PrintToString(one->unsafeGetTensorImpl()) +
                         (one->requires_grad() ? " requires grad" : "");
    }
  };
  note(module.named_parameters());
  note(module.named_buffers());
  return names;
}

nn::Sequential named() {
  return nn::Sequential(
      {{"inward", nn::Conv2d(nn::Conv2dOptions(3, 4, 3).padding(1))},
       {"down", Block(nn::MaxPool2d(2), Skip(nn::BatchNorm2d(4), nn::SiLU()), nn::Conv2d(4, 6, 1),
                      nn::Dropout(0.1))},
       {"up", nn::ConvTranspose2d(nn::ConvTranspose2dOptions(6, 3, 2).stride(2))}});
}

TEST(Convert, ReportsByName) {
  const auto model = named();
  const auto [same, report] = convert(model);
  EXPECT_EQ(same.ptr(), model.ptr());
  EXPECT_EQ(report.converted, (Names{{"inward", "DomainParallelConv2d"},
                                     {"down.0", "DomainParallelMaxPool2d"},
                                     {"down.1.0", "DomainParallelBatchNorm2d"},
                                     {"up", "DomainParallelConvTranspose2d"}}));
  EXPECT_EQ(report.kept, (Names{{"down.1.1", "element-wise"},
                                {"down.2", "1x1 convolution: every position by itself"},
                                {"down.3", "element-wise"}}));
  const auto again = convert(same).second;
  EXPECT_TRUE(again.converted.empty());
  EXPECT_EQ(again.kept.at("inward"), "is domain-parallel already");
  EXPECT_EQ(again.kept.size(), 7);
}

TEST(Convert, KeepsTensorsModesAndNames) {
  auto model = named();
  model->named_parameters()["inward.weight"].set_requires_grad(false);
  model->ptr(0)->eval();
  const auto before = of_all(*model);
  ASSERT_EQ(before.size(), 11);
  convert(model);
  EXPECT_EQ(of_all(*model), before);
  EXPECT_EQ(model->named_modules().keys(), named()->named_modules().keys());
  EXPECT_FALSE(model->ptr(0)->is_training());
  EXPECT_TRUE(model->named_modules()["down.1.0"]->is_training());
  model->eval();
  EXPECT_FALSE(model->named_modules()["down.1.0"]->is_training());
  model->to(at::kDouble);
  EXPECT_EQ(model->forward(at::zeros({1, 3, 4, 4}, at::kDouble)).scalar_type(), at::kDouble);
  EXPECT_EQ(of_all(*model), before);
}

TEST(Convert, TakesARootThatIsALayer) {
  const nn::Conv2d conv(nn::Conv2dOptions(2, 2, 3).padding(1));
  const auto [form, report] = convert(conv);
  EXPECT_EQ(report.converted, (Names{{"", "DomainParallelConv2d"}}));
  EXPECT_EQ(of_all(*form), of_all(*conv));
  const auto x = at::randn({1, 2, 5, 5});
  const auto layer = std::dynamic_pointer_cast<DomainParallelConv2d::ContainedType>(form);
  EXPECT_TRUE(test::near(layer->forward(x), at::conv2d(x, conv->weight, conv->bias, 1, 1), 1e-6));
  EXPECT_EQ(layer->layer().weight.unsafeGetTensorImpl(), conv->weight.unsafeGetTensorImpl());
  const auto [relu, kept] = convert(nn::AnyModule(nn::ReLU()));
  EXPECT_EQ(kept.kept, (Names{{"", "element-wise"}}));
  EXPECT_NE(relu.ptr()->as<nn::ReLU>(), nullptr);
  EXPECT_EQ(convert(Net()).second.kept.size(), 2);  // down.1 and mix
}

struct OwnForwardImpl : nn::Conv2dImpl {
  using nn::Conv2dImpl::Conv2dImpl;
  // NOLINTNEXTLINE(bugprone-derived-method-shadowing-base-method): what the test is about
  at::Tensor forward(const at::Tensor& x) { return nn::Conv2dImpl::forward(x) * 2; }
};
TORCH_MODULE(OwnForward);

struct MeanImpl : nn::Module {
  at::Tensor forward(const at::Tensor& x) { return x.mean(-2, true); }
};
TORCH_MODULE(Mean);

TEST(Convert, SaysWhyAModuleStays) {
  const std::string unknown =
      "mixes positions, or may do so, and has no domain-parallel form: it sees this rank's part "
      "only";
  const std::vector<std::pair<nn::AnyModule, std::string>> stay = {
      {nn::AnyModule(Mean()), unknown},
      {nn::AnyModule(OwnForward(2, 2, 3)), unknown},
      {nn::AnyModule(nn::ReflectionPad2d(1)), unknown},
      {nn::AnyModule(nn::InstanceNorm2d(2)), unknown},
      {nn::AnyModule(nn::AdaptiveAvgPool2d(1)), unknown},
      {nn::AnyModule(nn::Flatten()), unknown},
      {nn::AnyModule(nn::Functional(at::relu)), unknown},
      {nn::AnyModule(nn::LSTM(2, 2)), unknown},
      {nn::AnyModule(nn::MultiheadAttention(4, 2)), unknown},
      {nn::AnyModule(nn::Softmax(-2)), unknown},
      {nn::AnyModule(nn::Softmax(1)), unknown},
      {nn::AnyModule(nn::LogSoftmax(-3)), "mixes axis -3 only"},
      {nn::AnyModule(nn::GLU(-1)), "mixes axis -1 only"},
      {nn::AnyModule(nn::Softmax2d()), "mixes channels only"},
      {nn::AnyModule(nn::Linear(3, 3)), "mixes the last axis only"},
      {nn::AnyModule(nn::PixelShuffle(2)), "makes rows of channels, each position by itself"},
      {nn::AnyModule(nn::Embedding(2, 2)), "every position by itself"},
      {nn::AnyModule(nn::Dropout()), "element-wise"},
      {nn::AnyModule(nn::PReLU()), "element-wise"},
      {nn::AnyModule(nn::Dropout2d()), "drops channels, each rank its own"},
      {nn::AnyModule(nn::Conv2d(2, 2, 1)), "1x1 convolution: every position by itself"},
      {nn::AnyModule(nn::ConvTranspose3d(2, 2, 1)), "1x1 convolution: every position by itself"},
      {nn::AnyModule(nn::AvgPool2d(nn::AvgPool2dOptions(2).divisor_override(3))),
       unknown + " (divisor_override)"},
      {nn::AnyModule(nn::Conv1d(2, 2, 3)), unknown + " (dim -2 is no spatial axis of Conv1d)"},
      {nn::AnyModule(nn::MaxPool1d(2)), unknown + " (dim -2 is no spatial axis of MaxPool1d)"},
      {nn::AnyModule(DomainParallelAvgPool1d(2)),
       unknown + " (dim -2 is no spatial axis of AvgPool1d)"},
  };
  for (const auto& [module, reason] : stay) {
    const auto report = convert(module).second;
    EXPECT_EQ(report.kept, (Names{{"", reason}}));
    EXPECT_TRUE(report.converted.empty());
  }
  EXPECT_EQ(convert(nn::Linear(3, 3), {}, -1).second.kept.at(""),
            unknown + ": the last axis is the sharded one");
  EXPECT_TRUE(convert(nn::ParameterList(at::ones(2))).second.kept.empty());
}

// What is called by its class stays, and says so; the same layer in a Sequential does not.
TEST(Convert, ReportsMembersThatCannotBeReplaced) {
  const nn::Conv2d shared(2, 2, 3);
  const nn::ModuleDict model;
  const std::string mixes =
      "mixes positions, and its caller names its class: it sees this rank's part only (make it a "
      "halcyon::parallel::DomainParallelConv2d)";
  const nn::Sequential list(shared, nn::ReLU(), shared);
  const DomainParallelConv2d ours(2, 2, 3);
  model.ptr()->update({{"typed", shared.ptr()},
                       {"list", list.ptr()},
                       {"twin", list.ptr()},  // reported once
                       {"ours", ours.ptr()},
                       {"again", ours.ptr()},
                       {"mix", nn::Conv2d(2, 2, 1).ptr()}});
  const auto report = convert(model, {}, -1).second;
  EXPECT_EQ(report.converted, (Names{{"list.0", "DomainParallelConv2d"},
                                     {"list.2", "DomainParallelConv2d"},
                                     {"ours", "DomainParallelConv2d"},
                                     {"again", "DomainParallelConv2d"}}));
  EXPECT_EQ(report.kept, (Names{{"typed", mixes},
                                {"list.1", "element-wise"},
                                {"mix", "1x1 convolution: every position by itself"}}));
  EXPECT_EQ((*model)["typed"], shared.ptr());
  EXPECT_EQ(list->ptr(0), list->ptr(2));
  EXPECT_NE(list->ptr(0), shared.ptr());
  EXPECT_EQ(list->named_modules()["0"], list->ptr(0));
  EXPECT_TRUE(ours->is_sharded());
}

TEST(Convert, ReadsWhatTorchsLayersSaved) {
  nn::Sequential plain = named(), read = convert(named()).first;
  plain->eval();
  read->eval();
  std::stringstream file;
  torch::save(plain, file);
  torch::load(read, file);
  const auto x = at::randn({1, 3, 6, 4});
  EXPECT_TRUE(test::near(read->forward(x), plain->forward(x), 1e-6));
}

}  // namespace
}  // namespace halcyon::parallel
