// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Where this process stands among those of its run, and how they find one another.
struct Launch {
  std::string launcher = "none";  // "torchrun", "mpirun", "srun", "none": for messages
  int64_t rank = 0;
  int64_t size = 1;
  int64_t local_rank = 0;  // on its machine; the GPU that it takes
  // Ranks meet at a file that all see, or at a host and port, where rank 0 serves unless the
  // launcher does.
  std::string store_file;
  std::string host = "127.0.0.1";
  int port = 29500;
  bool launcher_serves = false;
  int64_t attempt = 0;  // how often the launcher has started this run again
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
  bool gpus = false;  // groups move tensors of GPUs too, by NCCL; this process has GPU local_rank
};

// As torchrun, mpirun (Open MPI, MPICH) or srun say it in the environment:
//   torchrun   RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT
//   mpirun     OMPI_COMM_WORLD_RANK, .._SIZE, .._LOCAL_RANK, or PMI_RANK, PMI_SIZE, MPI_LOCALRANKID
//   srun       SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID; rank 0's host is the first of
//              SLURM_STEP_NODELIST
// MASTER_ADDR and MASTER_PORT hold for all of them; without a port one is made of the job's name,
// so that two jobs on one machine do not meet. HALCYON_STORE_FILE names a file to meet at instead,
// new for each run, on a disk that all ranks see. HALCYON_TIMEOUT is the timeout in seconds.
// Outside a launcher: this process alone. Error(configuration) where the variables contradict one
// another.
Launch launch_from_environment();

// The groups of this process; the default group (Group()) while it lives. Groups end with it, in
// order: it stands in main(), not in a static.
class World {
 public:
  // Returns when all ranks have met. Error(communication) where one does not come in time,
  // Error(configuration) where GPUs are asked for and NCCL or this process's GPU is missing.
  explicit World(const Launch& launch);
  ~World();
  World(World&&) noexcept;
  World& operator=(World&&) = delete;

  const Launch& launch() const { return launch_; }
  const Group& group() const { return group_; }
  // Ranks of the world that form a group; every rank calls it with the same lists in the same
  // order, as each list opens its own connections. Returns the group of those that are in the list,
  // and of this process alone elsewhere.
  Group subgroup(const std::vector<int64_t>& ranks);

 private:
  Launch launch_;
  Group group_;
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

// World(launch_from_environment()): what a program calls first. gpus: as in Launch.
World init(bool gpus = false);

// A world of data x domain x context ranks: g = (data * context_size + context) * domain_size +
// domain, so that ranks that exchange halos are neighbours on a machine.
struct Mesh {
  Group data, domain, context;
};
// Error(argument) unless the three sizes are positive and their product is the size of the world.
Mesh make_mesh(World& world, int64_t data, int64_t domain, int64_t context);

}  // namespace halcyon::parallel
