// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Which entries of a sharded axis go where in one operation that moves entries by their numbers.
// The result has those of rank 0 first, then those of rank 1, and so on.
struct IndexTransfer {
  std::string operation;
  Group group;
  int64_t tag = 0;
  int64_t dim = 0;                // of the sharded axis
  int64_t local_rows = 0;         // of x
  std::vector<int64_t> counts;    // by rank: entries of the result that come from it
  std::vector<at::Tensor> asked;  // by rank: entries of x that go to it, int64, distinct

  int64_t rows() const;  // of the result
};

// The transfer of what this rank wants and what each rank asks of it, both as ascending distinct
// numbers of the global axis; starts as starts_of. asked[this rank] is not read.
std::shared_ptr<IndexTransfer> index_transfer(const std::string& operation, const Group& group,
                                              int64_t tag, int64_t dim,
                                              const std::vector<int64_t>& starts,
                                              const at::Tensor& wanted,
                                              const std::vector<at::Tensor>& asked,
                                              c10::Device device);

// Every rank gets the whole axis.
std::shared_ptr<IndexTransfer> whole_transfer(const std::string& operation, const Group& group,
                                              int64_t tag, int64_t dim,
                                              const std::vector<int64_t>& starts,
                                              c10::Device device);

// The result of x; differentiable any number of times. The adjoint adds what comes back in the
// order of the ranks.
at::Tensor move_indexed(const at::Tensor& x, const std::shared_ptr<const IndexTransfer>& transfer);
// The adjoint as an operation of its own: the sums over the ranks of what they have of x's entries.
at::Tensor move_indexed_back(const at::Tensor& result,
                             const std::shared_ptr<const IndexTransfer>& transfer);

}  // namespace halcyon::parallel
