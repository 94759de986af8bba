// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/parallel/time_space.h"

namespace halcyon {

// Context parallelism: the frames of every sample lie on the ranks of a group, each of which has
// all weights. A block works on its own frames; around the temporal attention it holds all frames
// of some pixels instead, so that every frame sees the others.
struct ContextParallel {
  std::string mode;  // "all_to_all": equal parts only; "redistribute": of any sizes, also none
  parallel::Group group;
};

// Of set_context_parallel's arguments; Error(argument) for another mode.
std::optional<ContextParallel> context_parallel(const std::optional<std::string>& mode,
                                                const parallel::Group& target);

// What the ranks tell one another before a forward.
struct ContextInputs {
  at::Tensor x, tokens;  // (B, C, t_local, ...) and (B, t_local, X, C)
  bool requires_grad = false;
  // the same on every rank: tensors to the last bit, facts by name
  std::vector<std::pair<const char*, std::optional<at::Tensor>>> whole;
  std::vector<std::pair<const char*, int64_t>> facts;
};

struct ContextLayout {
  std::shared_ptr<const parallel::TimeSpace> ranks;  // null in a group of one
  int64_t frames = 0;                                // of all ranks
  bool any_requires_grad = false;
};

// Runs inputs(), this rank's checks and what needs no other rank, and agrees on how the frames lie:
// whatever does not fit together, or is refused by one rank's inputs(), is an Error on every rank.
// frames: how many all ranks should have.
ContextLayout agree_on_context(const ContextParallel& context, const char* operation,
                               std::optional<int64_t> frames,
                               const std::function<ContextInputs()>& inputs);

}  // namespace halcyon
