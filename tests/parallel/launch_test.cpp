// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/launch.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <thread>

#include "halcyon/base/device.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/conv.h"
#include "halcyon/parallel/nccl/backend.h"
#include "halcyon/parallel/reshard.h"
#include "halcyon/parallel/rows.h"
#include "tests/support/paths.h"
#include "tests/support/ranks.h"

namespace halcyon::parallel {
namespace {

// The environment of a launcher, for as long as it lives.
class Environment {
 public:
  using Values = std::map<std::string, std::string>;
  explicit Environment(const Values& values) : values_(values) {
    for (const auto& [name, value] : values_) setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : values_) unsetenv(name.c_str());
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  Values values_;
};

TEST(Launch, WithoutALauncherIsThisProcessAlone) {
  const auto launch = launch_from_environment();
  EXPECT_EQ(launch.size, 1);
  const World world(launch);
  EXPECT_EQ(world.group().size(), 1);
}

TEST(Launch, ReadsTorchrun) {
  const Environment set(Environment::Values{{"RANK", "3"},
                                            {"WORLD_SIZE", "8"},
                                            {"LOCAL_RANK", "1"},
                                            {"MASTER_ADDR", "node7"},
                                            {"MASTER_PORT", "1234"},
                                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                            {"HALCYON_TIMEOUT", "90"}});
  const auto launch = launch_from_environment();
  EXPECT_EQ(launch.launcher, "torchrun");
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.host, "node7");
  EXPECT_EQ(launch.port, 1234);
  EXPECT_TRUE(launch.launcher_serves);
  EXPECT_EQ(launch.timeout, std::chrono::seconds(90));
}

TEST(Launch, ReadsOpenMpiAndWantsAHostBeyondOneMachine) {
  const std::map<std::string, std::string> values{{"OMPI_COMM_WORLD_RANK", "2"},
                                                  {"OMPI_COMM_WORLD_SIZE", "4"},
                                                  {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
                                                  {"PMIX_NAMESPACE", "prterun-1"}};
  const Environment set(values);
  {
    const Environment local(Environment::Values{{"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}});
    const auto launch = launch_from_environment();
    EXPECT_EQ(launch.launcher, "mpirun");
    EXPECT_EQ(launch.host, "127.0.0.1");
    EXPECT_FALSE(launch.launcher_serves);
    const Environment other(Environment::Values{{"PMIX_NAMESPACE", "prterun-2"}});
    EXPECT_NE(launch_from_environment().port, launch.port);
  }
  const Environment spread(Environment::Values{{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_THROW(launch_from_environment(), Error);
}

TEST(Launch, ReadsSlurmsListsOfHosts) {
  for (const auto& [list, host] : std::map<std::string, std::string>{
           {"a", "a"}, {"a,b", "a"}, {"n[03-07,9],x", "n03"}, {"n[1,2]-ib,m", "n1-ib"}}) {
    const Environment set(Environment::Values{{"SLURM_PROCID", "1"},
                                              {"SLURM_NTASKS", "2"},
                                              {"SLURM_LOCALID", "1"},
                                              {"SLURM_STEP_NODELIST", list},
                                              {"SLURM_JOB_ID", "7"}});
    const auto launch = launch_from_environment();
    EXPECT_EQ(launch.launcher, "srun");
    EXPECT_EQ(launch.host, host) << list;
  }
}

TEST(Launch, RefusesWhatIsNoNumberOrNoRank) {
  {
    const Environment set(Environment::Values{{"RANK", "one"}, {"WORLD_SIZE", "2"}});
    EXPECT_THROW(launch_from_environment(), Error);
  }
  const Environment set(Environment::Values{{"RANK", "2"}, {"WORLD_SIZE", "2"}});
  EXPECT_THROW(launch_from_environment(), Error);
}

TEST(Launch, AMissingRankIsAnErrorThatSaysWhereItWasExpected) {
  const test::TemporaryFolder folder;
  Launch launch;
  launch.size = 2;
  launch.host = "127.0.0.1";
  launch.port = 1;  // nobody serves here, and rank 1 does not either
  launch.rank = 1;
  launch.timeout = std::chrono::seconds(1);
  try {
    const World world(launch);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::communication);
    EXPECT_NE(std::string(e.what()).find("127.0.0.1:1"), std::string::npos) << e.what();
  }
}

// Whoever has met the others may go without a word, also while these still look about.
TEST(World, ARankThatLeavesAtOnceIsNoFailureOfTheOthers) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    test::on_ranks(3, [](const Group& group) { EXPECT_EQ(group.size(), 3); });
  }
}

TEST(World, AskedForGpusSaysWhatIsMissing) {
  if (why_no_nccl().empty()) GTEST_SKIP() << "this machine has GPUs and NCCL";
  Launch launch;
  launch.size = 2;
  launch.gpus = true;
  try {
    const World world(launch);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::configuration);
    EXPECT_NE(std::string(e.what()).find(why_no_nccl()), std::string::npos) << e.what();
  }
}

#ifdef HALCYON_NCCL_IS_BUILT
TEST(Nccl, OnlyAGpuMayBeMissing) {
  EXPECT_EQ(why_no_nccl(), why_no_cuda());
}
#endif

// The same code over NCCL as over gloo; each rank a thread with a GPU of its own.
TEST(Nccl, MovesAndAddsAsGlooDoes) {
  if (!why_no_nccl().empty()) GTEST_SKIP() << why_no_nccl();
  if (at::detail::getCUDAHooks().deviceCount() < 2) GTEST_SKIP() << "one GPU; two ranks need two";
  const auto whole = at::randn({2, 3, 11, 8}), weight = at::randn({4, 3, 3, 3});
  const auto outcome = [&](const Group& group, c10::Device device) {
    const c10::DeviceGuard guard(device);
    const auto x = shard(whole.to(device), -2, group).detach().requires_grad_();
    const auto halo = halo_exchange(x, 2, -2, group, "periodic");
    const auto w = weight.to(device).requires_grad_();
    const auto y = conv(x, w, {}, 1, PerAxis(1), 1, 1, "zeros", -2, group);
    (y.square().sum() + (halo * halo).sum()).backward();
    return std::vector<at::Tensor>{halo.detach().cpu(), y.detach().cpu(), x.grad().cpu(),
                                   w.grad().cpu()};
  };
  std::vector<std::vector<at::Tensor>> ours(2), wanted(2);
  test::on_ranks(2, [&](const Group& group) { wanted[group.rank()] = outcome(group, c10::kCPU); });
  const auto gpus = [&](const Group& group) {
    ours[group.rank()] = outcome(group, c10::Device(c10::kCUDA, static_cast<int8_t>(group.rank())));
  };
  test::on_ranks(2, gpus, 60, /*gpus=*/true);
  for (int64_t rank = 0; rank < 2; ++rank) {
    EXPECT_TRUE(ours[rank][0].equal(wanted[rank][0]));
    for (size_t i = 1; i < wanted[rank].size(); ++i) {
      EXPECT_TRUE(ours[rank][i].allclose(wanted[rank][i], 1e-3, 1e-3)) << rank << ' ' << i;
    }
  }
}

// Data x context x domain ranks of one world, each a thread.
TEST(Mesh, CutsTheWorldAlongThreeAxes) {
  const test::TemporaryFolder folder;
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < 8; ++rank) {
    threads.emplace_back([&, rank] {
      Launch launch;
      launch.rank = rank;
      launch.size = 8;
      launch.store_file = (folder / "store").string();
      World world(launch);
      EXPECT_THROW(make_mesh(world, 2, 2, 3), Error);
      const auto mesh = make_mesh(world, 2, 2, 2);
      const auto members = [&](const Group& group) {
        const auto mine = at::full({1}, rank, at::kLong);
        const auto all = gather_rows(mine, 0, group.size(), 0, group);
        return std::vector<int64_t>(all.data_ptr<int64_t>(), all.data_ptr<int64_t>() + all.numel());
      };
      const auto base = rank / 2 * 2;
      EXPECT_EQ(members(mesh.domain), (std::vector<int64_t>{base, base + 1}));
      EXPECT_EQ(members(mesh.context), (std::vector<int64_t>{rank & ~2, rank | 2}));
      EXPECT_EQ(members(mesh.data), (std::vector<int64_t>{rank & ~4, rank | 4}));
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace halcyon::parallel
