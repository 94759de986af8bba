// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

namespace halcyon::training {

// One number out of several, each bit of which depends on every input bit (the finaliser of
// SplitMix64, Steele et al. 2014): mix(seed, {step, sample}) names a stream.
uint64_t mix(uint64_t seed, std::initializer_list<uint64_t> parts);

// A counter-based generator, Philox 4x32-10 (Salmon et al., SC 2011): the numbers are a pure
// function of (seed, parts, how many were drawn), the same on every machine and in every version of
// LibTorch, so that a resumed run needs no generator's state. Small; copy and make it freely.
class Random {
 public:
  using result_type = uint32_t;  // a UniformRandomBitGenerator

  explicit Random(uint64_t seed, std::initializer_list<uint64_t> parts = {});

  static constexpr uint32_t min() { return 0; }
  static constexpr uint32_t max() { return std::numeric_limits<uint32_t>::max(); }
  uint32_t operator()();

  double uniform();                                      // [0, 1), 53 bits
  double uniform(double low, double high);               // [low, high)
  double normal(double mean = 0, double deviation = 1);  // Box-Muller
  int64_t below(int64_t n);                              // 0 .. n - 1, unbiased; n > 0
  bool chance(double probability) { return uniform() < probability; }
  // The index of a weight, drawn in proportion to it; weights are at least zero, not all zero.
  int64_t weighted(const std::vector<double>& weights);
  std::vector<int64_t> permutation(int64_t n);
  std::vector<int64_t> choose(int64_t n, int64_t k);  // k different ones of n, ascending

  // float64 on the CPU
  at::Tensor uniform_tensor(at::IntArrayRef shape);
  at::Tensor normal_tensor(at::IntArrayRef shape);

 private:
  uint64_t key_, stream_, block_ = 0;
  std::array<uint32_t, 4> numbers_{};
  int used_ = 4;
  double spare_ = 0;
  bool has_spare_ = false;
};

// The n-th sample of training over epochs of `size` samples, each epoch in an order of its own.
class EpochOrder {
 public:
  EpochOrder(int64_t size, uint64_t seed);
  int64_t operator()(int64_t n);

 private:
  int64_t size_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;  // of epoch_
};

}  // namespace halcyon::training
