// SPDX-License-Identifier: Apache-2.0
#include "halcyon/training/random.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "halcyon/base/error.h"

namespace halcyon::training {
namespace {

uint64_t finalise(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace

uint64_t mix(uint64_t seed, std::initializer_list<uint64_t> parts) {
  uint64_t state = finalise(seed + 0x9e3779b97f4a7c15);
  for (const uint64_t part : parts) state = finalise(state * 3 + part + 0x9e3779b97f4a7c15);
  return state;
}

Random::Random(uint64_t seed, std::initializer_list<uint64_t> parts)
    : key_(seed), stream_(parts.size() == 0 ? 0 : mix(parts.size(), parts)) {}

uint32_t Random::operator()() {
  if (used_ == 4) {
    numbers_ = philox({static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32),
                       static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                      static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32));
    ++block_;
    used_ = 0;
  }
  return numbers_[static_cast<std::size_t>(used_++)];
}

double Random::uniform() {
  const uint64_t high = (*this)(), low = (*this)();
  return static_cast<double>((high << 32 | low) >> 11) * 0x1p-53;
}

double Random::uniform(double low, double high) {
  return low + (high - low) * uniform();
}

double Random::normal(double mean, double deviation) {
  if (std::exchange(has_spare_, false)) return mean + deviation * spare_;
  const double radius = std::sqrt(-2 * std::log1p(-uniform()));
  const double angle = 2 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return mean + deviation * radius * std::cos(angle);
}

int64_t Random::below(int64_t n) {
  HALCYON_CHECK(n > 0, "Random.below", "expected n above zero, got {}", n);
  const auto range = static_cast<uint64_t>(n);
  const uint64_t cut = -range % range;  // 2^64 mod n: the numbers below it would favour some values
  for (;;) {
    const uint64_t high = (*this)(), x = high << 32 | (*this)();
    if (x >= cut) return static_cast<int64_t>(x % range);
  }
}

int64_t Random::weighted(const std::vector<double>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const bool usable = std::all_of(weights.begin(), weights.end(), [](double w) { return w >= 0; });
  HALCYON_CHECK(usable && total > 0 && std::isfinite(total), "Random.weighted",
                "expected weights of at least zero with a positive sum, got the sum {}", total);
  double left = uniform() * total;
  int64_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    last = static_cast<int64_t>(i);
    left -= weights[i];
    if (left < 0) break;
  }
  return last;
}

std::vector<int64_t> Random::permutation(int64_t n) {
  HALCYON_CHECK(n >= 0, "Random.permutation", "expected n of at least zero, got {}", n);
  std::vector<int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = n - 1; i > 0; --i) {
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(below(i + 1))]);
  }
  return order;
}

std::vector<int64_t> Random::choose(int64_t n, int64_t k) {
  HALCYON_CHECK(0 <= k && k <= n, "Random.choose", "expected 0 <= k <= n, got k {} and n {}", k, n);
  std::vector<int64_t> order = permutation(n);
  order.resize(static_cast<std::size_t>(k));
  std::sort(order.begin(), order.end());
  return order;
}

at::Tensor Random::uniform_tensor(at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape, at::kDouble);
  double* data = out.mutable_data_ptr<double>();
  for (int64_t i = 0; i < out.numel(); ++i) data[i] = uniform();
  return out;
}

at::Tensor Random::normal_tensor(at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape, at::kDouble);
  double* data = out.mutable_data_ptr<double>();
  for (int64_t i = 0; i < out.numel(); ++i) data[i] = normal();
  return out;
}

EpochOrder::EpochOrder(int64_t size, uint64_t seed) : size_(size), seed_(seed) {
  HALCYON_CHECK(size > 0, "EpochOrder", "expected at least one sample, got {}", size);
}

int64_t EpochOrder::operator()(int64_t n) {
  HALCYON_CHECK(n >= 0, "EpochOrder", "expected n of at least zero, got {}", n);
  if (n / size_ != epoch_) {
    epoch_ = n / size_;
    order_ = Random(seed_, {static_cast<uint64_t>(epoch_)}).permutation(size_);
  }
  return order_[static_cast<std::size_t>(n % size_)];
}

}  // namespace halcyon::training
