// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "halcyon/parallel/group.h"

// The files of ../shared/golden/parallel: what one process computes, and how it is cut.
namespace halcyon::test {

inline constexpr double kExact = 1e-12;  // of doubles whose sums are in another order

struct GoldenCase {
  std::string name;                           // "w1.dim-2.even": its words say the options
  std::map<std::string, at::Tensor> tensors;  // "x", "y", "dx"; "peer.y0": what a peer gave
  nlohmann::json peer;                        // what the file says that a peer did

  bool has(const std::string& tensor) const { return tensors.contains(tensor); }
  const at::Tensor& operator[](const std::string& tensor) const;
  bool says(const std::string& word) const;
  // 2 of the word "p2" for "p"; of "s122" the digits, one an axis, where there are so many axes.
  std::optional<int64_t> number(const std::string& word) const;
  std::optional<std::vector<int64_t>> per_axis(const std::string& word, size_t axes) const;
  // The lengths of the ranks' parts, as the file says or by the rule of torch.tensor_split.
  std::vector<int64_t> sizes(int64_t ranks, int64_t dim) const;

 private:
  std::optional<std::string> after(const std::string& word) const;
};

struct GoldenCases {
  int64_t ranks;                  // of the run that made the file; 0: any
  std::vector<GoldenCase> cases;  // also those that have no tensors
};
GoldenCases golden_cases(const std::string& file);

// Lengths of 1 to 4 ranks' parts: even, uneven, thin, none.
std::vector<std::vector<int64_t>> cuts_of(int64_t length);

at::Tensor part(const at::Tensor& x, const std::vector<int64_t>& sizes, int64_t rank, int64_t dim);
// A leaf that needs a gradient.
at::Tensor leaf(const at::Tensor& x);

// What each rank gave, in rank order.
using Parts = std::vector<std::vector<at::Tensor>>;
at::Tensor joined(const Parts& parts, size_t i, int64_t dim);
at::Tensor summed(const Parts& parts, size_t i);

// Where a rank stands among rows x columns ranks, which are numbered in row order.
struct Place {
  parallel::Group all;
  parallel::Group down;   // its column, in which its rank is its row
  parallel::Group along;  // its row
};

struct Problem {
  std::string name;
  int64_t rows = 1, columns = 1;
  std::function<std::vector<at::Tensor>(const Place&)> work;  // of each rank
  std::function<void(const Parts&)> check;
};

// Groups are made once for all problems on the same ranks.
void solve(const std::vector<Problem>& problems);

}  // namespace halcyon::test
