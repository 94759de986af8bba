// SPDX-License-Identifier: Apache-2.0
#include "tests/support/ranks.h"

#include <exception>
#include <filesystem>
#include <thread>

#include "halcyon/parallel/launch.h"
#include "tests/support/paths.h"

namespace halcyon::test {

void on_ranks(int64_t size, const std::function<void(const parallel::Group&)>& f,
              double timeout_seconds, bool gpus) {
  const TemporaryFolder folder;
  std::vector<std::exception_ptr> thrown(size);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        parallel::Launch launch;
        launch.rank = rank;
        launch.size = size;
        launch.local_rank = rank;
        launch.gpus = gpus;
        launch.store_file = (folder.path() / "store").string();
        launch.timeout = std::chrono::milliseconds(static_cast<int64_t>(1000 * timeout_seconds));
        const parallel::World world(launch);
        f(world.group());
      } catch (...) {
        thrown[rank] = std::current_exception();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& one : thrown) {
    if (one) std::rethrow_exception(one);
  }
}

}  // namespace halcyon::test
