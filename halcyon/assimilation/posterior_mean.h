// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "halcyon/sphere/sparse_matrix.h"

namespace halcyon::assimilation {

// One report: which site and which age, with its error variance.
struct Report {
  int64_t site, age;  // age as an index
  float error_variance;
};

// The mean of a Gaussian field given observations, B H' (H B H' + R)^-1 y, at age 0. As the target
// of training it stands for the truth, whose expectation it is: the same minimum with less noise.
// covariance (ages * X, ages * X) float32; sites takes a field (X) to the sites; departures (N,
// reports) float32 are N draws of the same reports. Returns (N, X) float32.
at::Tensor posterior_mean(const at::Tensor& covariance, const SparseMatrix& sites,
                          const std::vector<Report>& reports, const at::Tensor& departures);

}  // namespace halcyon::assimilation
