// SPDX-License-Identifier: Apache-2.0
#include <netcdf.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <vector>

#include "halcyon/base/error.h"
#include "halcyon/base/netcdf_detail.h"

namespace halcyon::netcdf_detail {
namespace {

constexpr int kSecondsOfCpu = 5;

// All strings of a variable and of its attributes (their heap is where HDF5 trusts the file), and
// of other variables the first value, for the index of its chunks.
void visit(int file, int id) {
  char name[NC_MAX_NAME + 1];
  int count = 0;
  if (nc_inq_varnatts(file, id, &count) != NC_NOERR) return;
  for (int i = 0; i < count; ++i) {
    nc_type type = NC_NAT;
    std::size_t size = 0;
    if (nc_inq_attname(file, id, i, name) != NC_NOERR ||
        nc_inq_att(file, id, name, &type, &size) != NC_NOERR || type != NC_STRING)
      continue;
    std::vector<char*> values(size, nullptr);
    if (nc_get_att_string(file, id, name, values.data()) == NC_NOERR)
      nc_free_string(size, values.data());
  }
  int rank = 0;
  nc_type type = NC_NAT;
  if (id == NC_GLOBAL || nc_inq_var(file, id, name, &type, &rank, nullptr, nullptr) != NC_NOERR)
    return;
  std::vector<int> dims(static_cast<std::size_t>(rank));
  std::vector<std::size_t> start(dims.size() + 1, 0), count_of(dims.size() + 1, 1);
  std::size_t elements = 1;
  if (nc_inq_vardimid(file, id, dims.data()) != NC_NOERR) return;
  for (std::size_t d = 0; d < dims.size(); ++d) {
    std::size_t size = 0;
    if (nc_inq_dimlen(file, dims[d], &size) != NC_NOERR || size == 0) return;
    if (type == NC_STRING) count_of[d] = size;
    if (__builtin_mul_overflow(elements, count_of[d], &elements)) return;
  }
  if (type == NC_STRING) {
    std::vector<char*> values(elements, nullptr);
    nc_get_vara_string(file, id, start.data(), count_of.data(), values.data());
  } else if (type <= NC_UINT64) {
    double value = 0;
    char character = 0;
    if (type == NC_CHAR) {
      nc_get_vara_text(file, id, start.data(), count_of.data(), &character);
    } else {
      nc_get_vara_double(file, id, start.data(), count_of.data(), &value);
    }
  }
}

// In the child: no exception handling, no output, no return.
[[noreturn]] void probe(const std::function<int(int*)>& open, int report) {
  for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU})
    std::signal(signal, SIG_DFL);
  const rlimit cpu{kSecondsOfCpu, kSecondsOfCpu}, none{0, 0};
  setrlimit(RLIMIT_CPU, &cpu);
  setrlimit(RLIMIT_CORE, &none);
  try {
    int file = -1, variables = 0;
    if (open(&file) == NC_NOERR && nc_inq_nvars(file, &variables) == NC_NOERR) {
      for (int id = NC_GLOBAL; id < variables; ++id) visit(file, id);
      nc_close(file);
    }
  } catch (const std::exception&) {
    _exit(1);  // memory that nobody has was announced
  }
  const char done = 1;
  _exit(write(report, &done, 1) == 1 ? 0 : 1);
}

}  // namespace

void check_hdf5(const std::function<int(int*)>& open, const std::filesystem::path& name) {
  std::array<int, 2> pipe_ends{};
  HALCYON_CHECK_KIND(pipe(pipe_ends.data()) == 0, input, "NetCDF", "{}: cannot be checked: {}",
                     name.string(), std::strerror(errno));
  const auto child = fork();
  if (child == 0) {
    close(pipe_ends[0]);
    probe(open, pipe_ends[1]);
  }
  close(pipe_ends[1]);
  char done = 0;
  ssize_t got = -1;
  while (child > 0 && (got = read(pipe_ends[0], &done, 1)) < 0 && errno == EINTR) {
  }
  close(pipe_ends[0]);
  int status = 0;
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  HALCYON_CHECK_KIND(child > 0, input, "NetCDF", "{}: cannot be checked: {}", name.string(),
                     std::strerror(errno));
  HALCYON_CHECK_KIND(got == 1, input, "NetCDF",
                     "{}: corrupt: the HDF5 library does not survive reading it", name.string());
}

}  // namespace halcyon::netcdf_detail
