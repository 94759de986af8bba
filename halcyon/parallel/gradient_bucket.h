// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/group.h"

namespace halcyon::parallel {

// Gradients of some parameters of one dtype and device, as one tensor that is summed over the
// ranks. Behind them stands one word a parameter, its mark, which is summed with them.
class GradientBucket {
 public:
  explicit GradientBucket(std::vector<at::Tensor> parameters);

  const std::vector<at::Tensor>& parameters() const { return parameters_; }
  // The gradient (undefined: zeros) of the i'th parameter and its mark, as they go to the others.
  void put(size_t i, const at::Tensor& gradient, bool mark);
  // Of all ranks: sum of weight * gradient / divisor. A weight of zero leaves out what this rank
  // has, also where it is not finite.
  void reduce(const Group& group, const std::string& operation, int64_t tag, double weight,
              double divisor);
  // After reduce(): a view, and whether any rank's mark was set.
  at::Tensor gradient(size_t i) const;
  std::vector<bool> marks() const;

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<int64_t> starts_;
  at::Tensor flat_;
};

// The parameters, by their numbers, in buckets of about this many bytes and one dtype and device
// each, in the order in which they are given.
std::vector<std::vector<size_t>> cut_in_buckets(const std::vector<at::Tensor>& parameters,
                                                int64_t bucket_bytes);

// Their number, shapes, dtypes and kinds of device are the same on every rank.
void agree_on_tensors(Agreement& agreement, const char* name,
                      const std::vector<at::Tensor>& tensors);

// What ranks count for in a mean: a rank's weight and the sum of all, in units of the largest
// weight, so that products neither overflow nor, where all are equal, are rounded. Error(argument)
// unless they are finite, not negative, and one is positive.
struct Share {
  double weight, total;
};
Share share_of(const std::vector<double>& weights, int64_t rank, const std::string& operation);

}  // namespace halcyon::parallel
