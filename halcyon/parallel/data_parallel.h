// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

struct DataParallelOptions {
  int64_t bucket_bytes = 25 << 20;
  // Parameters may get no gradient in a backward on some ranks; there it counts as zero, and one
  // that gets none on any rank stays without. Otherwise that is an Error at the next forward.
  bool find_unused_parameters = false;
};

// One model on every rank, each with samples of its own: gradients become their mean over the ranks
// during backward. Buckets of gradients, in the reverse order of the parameters, are summed by a
// thread of their own as soon as they are ready, in an order fixed here, so that ranks never
// disagree; the last is done when backward() returns.
//
//   DataParallel parallel(names_and_parameters, group);
//   for (;;) {
//     parallel.begin_forward();
//     parallel.set_sample_count(batch.size());   // or not: every rank counts alike
//     loss(model(batch)).backward();             // the mean over this rank's samples
//     optimizer.step();
//   }
//
// Every rank makes it and every rank's backward takes part, with at least one parameter of the
// model; autograd::grad does not. A dead or silent peer is an Error(communication) from backward().
class DataParallel {
 public:
  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

  // Parameters that need no gradient are let be. Those that do, and others (buffers, frozen
  // parameters), first take the values that they have on rank 0. Error(argument) on every rank
  // where names, shapes, dtypes or options differ.
  DataParallel(const NamedTensors& parameters, const Group& group, DataParallelOptions options = {},
               const std::vector<at::Tensor>& others = {});
  ~DataParallel();
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  // Before a forward that a backward is to follow. Error(argument) that names the parameters which
  // got no gradient in the last one on some rank, unless find_unused_parameters; Error
  // (communication) where the last backward did not end, as other ranks wait for it.
  void begin_forward();

  // This rank's number of samples: the mean is weighted by it until another is set; none: every
  // rank counts alike. Zero is a rank whose gradients, also NaN, are left out.
  void set_sample_count(std::optional<double> count);
  std::optional<double> sample_count() const;

  // While false, a backward accumulates on this rank only, and the next after it reduces what was
  // accumulated.
  void set_synchronise(bool synchronise);
  bool synchronise() const;

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace halcyon::parallel
