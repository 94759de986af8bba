// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/data_parallel.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "halcyon/base/error.h"
#include "halcyon/parallel/courier.h"
#include "halcyon/parallel/exchange.h"
#include "halcyon/training/sharded_optimizer.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

// Ranks are threads here, and share torch's generator.
torch::nn::Sequential network(double seed = 0) {
  torch::nn::Sequential net(torch::nn::Linear(5, 7), torch::nn::Tanh(), torch::nn::Linear(7, 3));
  const torch::NoGradGuard data_only;
  for (auto& p : net->parameters()) {
    p.copy_((torch::arange(p.numel()) * 0.7 + seed).sin().view(p.sizes()));
  }
  return net;
}

DataParallel::NamedTensors named(const torch::nn::Module& module) {
  return training::trainable(module);
}

torch::Tensor samples(int64_t step) {
  return (torch::arange(30) * 0.3 + static_cast<double>(step)).cos().view({6, 5});
}

TEST(DataParallel, GradientsAreTheMeanOverAllSamples) {
  for (const int64_t ranks : {1, 2, 3, 4}) {
    auto whole = network();
    (whole->forward(samples(0)).square().mean()).backward();
    test::on_ranks(ranks, [&](const Group& group) {
      auto net = network(static_cast<double>(group.rank()));
      DataParallel parallel(named(*net), group, {.bucket_bytes = 64});
      const auto mine = samples(0).tensor_split(ranks)[group.rank()];
      for (int again = 0; again < 2; ++again) {
        net->zero_grad();
        parallel.begin_forward();
        parallel.set_sample_count(static_cast<double>(mine.size(0)));
        net->forward(mine).square().mean().backward();
        for (size_t i = 0; i < 4; ++i) {
          EXPECT_TRUE(net->parameters()[i].grad().allclose(whole->parameters()[i].grad(), 1e-5));
        }
      }
    });
  }
}

TEST(DataParallel, NamesADeadPeer) {
  try {
    test::on_ranks(2, [](const Group& group) {
      auto net = network();
      DataParallel parallel(named(*net), group);
      if (group.rank() == 0) net->forward(samples(0)).sum().backward();
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::communication);
    EXPECT_TRUE(std::string(e.what()).starts_with(
        "[DataParallel backward] rank 0: no answer from rank 1 after "))
        << e.what();
  }
}

TEST(DataParallel, ABackwardThatBreaksOffIsNotGoneOnFrom) {
  std::vector<std::string> texts(2);
  test::on_ranks(2, [&](const Group& group) {
    auto net = network();
    DataParallel parallel(named(*net), group, {.bucket_bytes = 1});
    if (group.rank() == 1) {
      net->parameters()[0].register_hook(
          [](const at::Tensor&) -> at::Tensor { throw std::runtime_error("broken off"); });
    }
    try {
      net->forward(samples(0)).sum().backward();
    } catch (const std::exception& e) {
      texts[group.rank()] = e.what();
    }
    if (group.rank() == 0) return;
    EXPECT_THROW(parallel.begin_forward(), Error);
  });
  EXPECT_TRUE(texts[0].starts_with("[DataParallel backward] rank 0: no answer from rank 1"))
      << texts[0];
  EXPECT_EQ(texts[1], "broken off");
}

TEST(DataParallel, LeavesNoHookBehind) {
  auto net = network();
  { const DataParallel parallel(named(*net), Group::alone()); }
  net->forward(samples(0)).sum().backward();
  EXPECT_TRUE(net->parameters()[0].grad().defined());
}

TEST(Courier, KeepsTheOrderAndThrowsTheFirstFailure) {
  Courier courier;
  std::vector<int> done;
  for (int i = 0; i < 5; ++i) {
    courier.submit([&done, i] {
      if (i == 3) throw std::runtime_error("three");
      done.push_back(i);
    });
  }
  EXPECT_THROW(courier.wait(), std::runtime_error);
  EXPECT_EQ(done, (std::vector<int>{0, 1, 2}));
  courier.submit([&done] { done.push_back(9); });
  courier.wait();
  EXPECT_EQ(done.back(), 9);
}

TEST(SpreadBySize, LargestFirst) {
  EXPECT_EQ(training::spread_by_size({1, 10, 4, 5}, 2), (std::vector<int64_t>{1, 0, 1, 1}));
  EXPECT_EQ(training::spread_by_size({3}, 3), (std::vector<int64_t>{0}));
}

const training::AdamWOptions kOptions{.weight_decay = 0.1};

void train(torch::nn::Sequential& net, auto& optimizer, int64_t from, int64_t to) {
  for (auto step = from; step < to; ++step) {
    optimizer.zero_grad();
    net->forward(samples(step)).square().sum().backward();
    optimizer.clip_gradients(1);
    optimizer.step(step, 1e-2);
  }
}

TEST(ShardedAdamW, IsBitwiseTheUnsharded) {
  auto whole = network();
  training::AdamW reference(*whole, kOptions);
  train(whole, reference, 0, 6);
  const auto wanted = reference.state();
  for (const int64_t before : {1, 2, 3, 4, 6}) {
    for (const int64_t after : {2, 5}) {
      std::map<std::string, at::Tensor> saved;
      std::vector<at::Tensor> weights;
      test::on_ranks(before, [&](const Group& group) {
        auto net = network();
        training::ShardedAdamW optimizer(*net, kOptions, group);
        train(net, optimizer, 0, 3);
        auto state = optimizer.saved_state();
        EXPECT_EQ(state.size(), group.rank() == 0 ? 8 : 0);
        if (group.rank() != 0) return;
        saved = state;
        for (const auto& p : net->parameters()) weights.push_back(p.detach());
      });
      test::on_ranks(after, [&](const Group& group) {
        auto net = network(5);
        {
          const torch::NoGradGuard data_only;
          for (size_t i = 0; i < weights.size(); ++i) net->parameters()[i].copy_(weights[i]);
        }
        training::ShardedAdamW optimizer(*net, kOptions, group);
        auto state = optimizer.restored_state();
        for (auto& [name, t] : state) t.copy_(saved.at(name));
        optimizer.take_restored(state);
        train(net, optimizer, 3, 6);
        for (size_t i = 0; i < 4; ++i) {
          EXPECT_TRUE(net->parameters()[i].equal(whole->parameters()[i])) << i;
        }
        for (const auto& [name, t] : optimizer.saved_state()) {
          EXPECT_TRUE(t.equal(wanted.at(name))) << name;
        }
      });
    }
  }
}

TEST(ShardedAdamW, MismatchIsAnErrorOnEveryRank) {
  std::vector<std::string> texts(2);
  test::on_ranks(2, [&](const Group& group) {
    auto net = network();
    try {
      const training::ShardedAdamW optimizer(
          *net, {.weight_decay = 0.1 * static_cast<double>(group.rank())}, group);
    } catch (const Error& e) {
      texts[group.rank()] = e.what();
    }
  });
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_NE(texts[0].find("weight_decay"), std::string::npos);
}

}  // namespace
}  // namespace halcyon::parallel
