// SPDX-License-Identifier: Apache-2.0
// The process that resume_test.cpp kills: trains a small HealDA in the folder argv[1].
#include <cstdio>

#include "halcyon/training/trainer.h"
#include "tests/training/toy_healda.h"

int main(int argc, char** argv) {
  using namespace halcyon::training;
  if (argc != 2) return 2;
  try {
    at::set_num_threads(2);
    const auto node = halcyon::config::parse(
        "steps: 120\nseed: 11\naccumulate: 2\nema: {decay: 0.95}\n"
        "validation: {every: 15, best: error}\ncheckpoints: {every: 7, keep: 2}\n",
        "child.yaml", "", {std::string("output=") + argv[1]});
    const auto task = test::toy_healda();
    TrainOptions options;
    options.show_progress = false;
    return Trainer(*task, TrainConfig::from(node), options).run().finished ? 0 : 3;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
