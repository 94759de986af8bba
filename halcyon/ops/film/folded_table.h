// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace halcyon::film_detail {

// A table of embeddings (rows, width) and its columns of weight1 (hidden, width), which are
// multiplied once instead of for each observation. A table of more rows than there are
// observations is cut to theirs first. Same bits for any number of threads.
class FoldedTable {
 public:
  FoldedTable(const at::Tensor& table, const at::Tensor& weight, const at::Tensor& ids,
              int64_t observations);

  // What stands for the table from here on: its rows and, one an observation, ids into them.
  int64_t rows() const { return table_.size(0); }
  const at::Tensor& ids() const { return ids_; }

  // (rows, hidden): table weight^T, and bias (hidden,) where it is defined.
  at::Tensor folded(const at::Tensor& bias) const;
  // From the gradient of folded: those of weight, of the whole table and of bias.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> unfolded(const at::Tensor& grad) const;

 private:
  at::Tensor table_, weight_, ids_;
  at::Tensor cut_;  // the ids in the whole table, where it was cut
  int64_t whole_;
};

}  // namespace halcyon::film_detail
