// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/launch.h"

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "halcyon/base/error.h"
#include "halcyon/parallel/companion.h"
#include "halcyon/parallel/nccl/backend.h"
#include "halcyon/parallel/own_address.h"

namespace halcyon::parallel {
namespace {

using c10::intrusive_ptr;
using c10::make_intrusive;

intrusive_ptr<c10d::Store> store_of(const Launch& launch) {
  if (!launch.store_file.empty()) {
    return make_intrusive<c10d::FileStore>(launch.store_file, static_cast<int>(launch.size));
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(launch.port);
  options.isServer = launch.rank == 0 && !launch.launcher_serves;
  options.numWorkers = static_cast<size_t>(launch.size);
  options.waitWorkers = !launch.launcher_serves;
  options.timeout = launch.timeout;
  const auto store = make_intrusive<c10d::TCPStore>(launch.host, options);
  // torchrun's store outlives the processes that it starts again: what those wrote is not ours
  return make_intrusive<c10d::PrefixStore>(fmt::format("halcyon attempt {}", launch.attempt),
                                           store);
}

std::shared_ptr<gloo::transport::Device> device_of(c10d::Store& store, const Launch& launch) {
  const auto address = own_address(store, launch);  // by all ranks, whatever one's environment says
  if (const char* const interface = std::getenv("GLOO_SOCKET_IFNAME"); interface && *interface) {
    return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  }
  return address.empty() ? c10d::ProcessGroupGloo::createDefaultDevice()
                         : c10d::ProcessGroupGloo::createDeviceForHostname(address);
}

}  // namespace

struct World::Connection {
  intrusive_ptr<c10d::Store> store;
  std::shared_ptr<gloo::transport::Device> device;
  std::vector<intrusive_ptr<c10d::ProcessGroup>> groups;
  int64_t made = 0;

  Group make(const Launch& launch, int64_t rank, int64_t size) {
    const auto name = fmt::format("halcyon {}", made);
    const auto prefixed = make_intrusive<c10d::PrefixStore>(name, store);
    auto options = c10d::ProcessGroupGloo::Options::create(launch.timeout);
    options->devices.push_back(device);
    auto group = make_intrusive<c10d::ProcessGroup>(prefixed, static_cast<int>(rank),
                                                    static_cast<int>(size));
    const auto backend = make_intrusive<c10d::ProcessGroupGloo>(prefixed, static_cast<int>(rank),
                                                                static_cast<int>(size), options);
    group->setBackend(c10::kCPU, c10d::ProcessGroup::BackendType::GLOO, backend);
    if (launch.gpus) {
      group->setBackend(c10::kCUDA, c10d::ProcessGroup::BackendType::NCCL,
                        nccl_backend({.store = prefixed,
                                      .name = name,
                                      .rank = rank,
                                      .size = size,
                                      .gpu = launch.local_rank,
                                      .timeout = launch.timeout}));
    }
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    group->setGroupName(name);
    groups.push_back(group);
    // A rank that is connected may leave while others still connect: they would take that for a
    // failure. Here all hear from all.
    Group made_group(group);
    meet(made_group, "parallel");
    return made_group;
  }
};

World::World(const Launch& launch) : launch_(launch), group_(Group::alone()) {
  HALCYON_CHECK(0 <= launch.rank && launch.rank < launch.size, "parallel",
                "expected a rank from 0 to below the {} of the run, got {}", launch.size,
                launch.rank);
  if (launch.size == 1) return;
  if (launch.gpus) {
    const auto why_not = why_no_nccl();
    HALCYON_CHECK_KIND(why_not.empty(), configuration, "parallel",
                       "expected GPUs and NCCL, as the program asks for, got none: {}", why_not);
  }
  connection_ = std::make_unique<Connection>();
  try {
    connection_->store = store_of(launch);
    connection_->store->setTimeout(launch.timeout);
    connection_->device = device_of(*connection_->store, launch);
    group_ = connection_->make(launch, launch.rank, launch.size);
  } catch (const std::exception& e) {
    std::string why = e.what();
    throw Error(
        ErrorKind::communication,
        fmt::format("[parallel] rank {} of {} ({}): the ranks did not meet at {}: {}", launch.rank,
                    launch.size, launch.launcher,
                    launch.store_file.empty()
                        ? fmt::format("{}:{} (MASTER_ADDR, MASTER_PORT)", launch.host, launch.port)
                        : launch.store_file,
                    why.substr(0, why.find('\n'))));
  }
  ++connection_->made;
  set_default_group(group_.process_group().get());
}

World::World(World&& other) noexcept = default;

World::~World() {
  if (!connection_) return;
  set_default_group(nullptr);
  group_ = Group::alone();
  // the last made first, then what they stand on
  while (!connection_->groups.empty()) connection_->groups.pop_back();
}

Group World::subgroup(const std::vector<int64_t>& ranks) {
  if (!connection_) return Group::alone();
  Group made = Group::alone();
  for (size_t i = 0; i < ranks.size(); ++i) {
    HALCYON_CHECK(0 <= ranks[i] && ranks[i] < launch_.size, "parallel",
                  "expected ranks from 0 to below {}, got {}", launch_.size, ranks[i]);
    if (ranks[i] == launch_.rank && ranks.size() > 1) {
      made =
          connection_->make(launch_, static_cast<int64_t>(i), static_cast<int64_t>(ranks.size()));
    }
  }
  ++connection_->made;  // on every rank, so that the names agree
  return made;
}

World init(bool gpus) {
  auto launch = launch_from_environment();
  launch.gpus = gpus;
  return World(launch);
}

Mesh make_mesh(World& world, int64_t data, int64_t domain, int64_t context) {
  HALCYON_CHECK(
      data > 0 && domain > 0 && context > 0 && data * domain * context == world.launch().size,
      "parallel",
      "expected data x domain x context ranks to be the {} of the run, got {} x {} x {}",
      world.launch().size, data, domain, context);
  // every rank names every group, in one order; only its own are opened
  Mesh mesh{Group::alone(), Group::alone(), Group::alone()};
  const auto open = [&](Group& mine, int64_t count, int64_t stride) {
    for (int64_t first = 0; first < world.launch().size; ++first) {
      if (first / stride % count != 0) continue;
      std::vector<int64_t> ranks;
      bool inside = false;
      for (int64_t i = 0; i < count; ++i) {
        ranks.push_back(first + i * stride);
        inside |= ranks.back() == world.launch().rank;
      }
      auto group = world.subgroup(ranks);
      if (inside) mine = std::move(group);
    }
  };
  open(mesh.domain, domain, 1);
  open(mesh.context, context, domain);
  open(mesh.data, data, domain * context);
  return mesh;
}

}  // namespace halcyon::parallel
