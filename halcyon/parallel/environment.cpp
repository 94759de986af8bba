// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <cstdlib>
#include <optional>

#include "halcyon/base/error.h"
#include "halcyon/parallel/launch.h"

namespace halcyon::parallel {
namespace {

constexpr const char* kOperation = "parallel";

std::optional<std::string> text_of(const char* name) {
  const char* const value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return value;
}

std::optional<int64_t> number_of(const char* name) {
  const auto text = text_of(name);
  if (!text) return std::nullopt;
  int64_t value = 0;
  const auto* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, value);
  HALCYON_CHECK_KIND(error == std::errc() && stop == end, configuration, kOperation,
                     "expected a whole number in the environment variable {}, got \"{}\"", name,
                     *text);
  return value;
}

// The variables of one launcher; those in which it names the job.
struct Dialect {
  const char* launcher;
  const char *rank, *size, *local_rank;
  const char* job[2];
};

constexpr Dialect kDialects[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", {"TORCHELASTIC_RUN_ID", nullptr}},
    {"mpirun",
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK",
     {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}},
    {"mpirun", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", {"PMI_JOBID", "HYDI_CONTROL_FD"}},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", {"SLURM_JOB_ID", "SLURM_STEP_ID"}},
};

// The first host of SLURM's lists: "a,b", "node[03-07,9],x", "n[1,2]-ib".
std::string first_host(const std::string& list) {
  const auto bracket = list.find('[');
  const auto comma = list.find(',');
  if (bracket == std::string::npos || comma < bracket) return list.substr(0, comma);
  const auto close = list.find(']', bracket);
  const auto number = list.substr(bracket + 1, list.find_first_of(",-]", bracket) - bracket - 1);
  const auto rest = close == std::string::npos ? "" : list.substr(close + 1);
  return list.substr(0, bracket) + number + rest.substr(0, rest.find(','));
}

int port_of_job(const Dialect& dialect) {
  uint32_t hash = 2166136261;
  for (const char* name : dialect.job) {
    const auto text = name ? text_of(name) : std::nullopt;
    if (!text) continue;
    for (const unsigned char c : *text) hash = (hash ^ c) * 16777619;
  }
  return 20000 + static_cast<int>(hash % 10000);  // below the ports that systems give out
}

}  // namespace

Launch launch_from_environment() {
  Launch launch;
  const Dialect* spoken = nullptr;
  for (const auto& dialect : kDialects) {
    // a batch script that srun or mpirun has not started sees a task count but no rank of its own
    if (number_of(dialect.rank) && number_of(dialect.size)) {
      spoken = &dialect;
      break;
    }
  }
  if (const auto seconds = number_of("HALCYON_TIMEOUT")) {
    HALCYON_CHECK_KIND(*seconds > 0, configuration, kOperation,
                       "expected HALCYON_TIMEOUT in seconds above zero, got {}", *seconds);
    launch.timeout = std::chrono::seconds(*seconds);
  }
  if (!spoken) return launch;
  launch.launcher = spoken->launcher;
  launch.rank = *number_of(spoken->rank);
  launch.size = *number_of(spoken->size);
  launch.local_rank = number_of(spoken->local_rank).value_or(0);
  HALCYON_CHECK_KIND(0 <= launch.rank && launch.rank < launch.size, configuration, kOperation,
                     "expected {} from 0 to below {}, got {} of {}", spoken->rank, spoken->size,
                     launch.rank, launch.size);
  launch.store_file = text_of("HALCYON_STORE_FILE").value_or("");
  launch.port = port_of_job(*spoken);
  if (const auto nodes = text_of("SLURM_STEP_NODELIST")) launch.host = first_host(*nodes);
  if (const auto host = text_of("MASTER_ADDR")) launch.host = *host;
  if (const auto port = number_of("MASTER_PORT")) {
    HALCYON_CHECK_KIND(0 < *port && *port < 65536, configuration, kOperation,
                       "expected MASTER_PORT from 1 to 65535, got {}", *port);
    launch.port = static_cast<int>(*port);
  }
  launch.launcher_serves = text_of("TORCHELASTIC_USE_AGENT_STORE") == "True";
  launch.attempt = number_of("TORCHELASTIC_RESTART_COUNT").value_or(0);
  const auto local_size = number_of("OMPI_COMM_WORLD_LOCAL_SIZE");
  HALCYON_CHECK_KIND(
      !local_size || *local_size == launch.size || text_of("MASTER_ADDR") ||
          !launch.store_file.empty(),
      configuration, kOperation,
      "expected MASTER_ADDR, the host of rank 0, for {} processes of mpirun with {} on "
      "this machine (mpirun -x MASTER_ADDR=...), or HALCYON_STORE_FILE",
      launch.size, *local_size);
  return launch;
}

}  // namespace halcyon::parallel
