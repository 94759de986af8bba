// SPDX-License-Identifier: Apache-2.0
// ThreadSanitizer does not see how libgomp starts and joins its threads and would report every
// write of a parallel loop. Linked into the tests of the tsan preset, this GOMP_parallel (what
// at::parallel_for calls) tells it, so that what remains are races between the threads of one loop.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

namespace {

struct Region {
  void (*body)(void*);
  void* data;
  char begin = 0, end = 0;  // their addresses name the two edges
};

void run(void* argument) {
  auto& region = *static_cast<Region*>(argument);
  __tsan_acquire(&region.begin);
  region.body(region.data);
  __tsan_release(&region.end);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void GOMP_parallel(void (*body)(void*),
                                                                     void* data, unsigned threads,
                                                                     unsigned flags) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto libgomp = reinterpret_cast<Parallel>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  Region region{body, data};
  __tsan_release(&region.begin);
  libgomp(run, &region, threads, flags);
  __tsan_acquire(&region.end);
}
