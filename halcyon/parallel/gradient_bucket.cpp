// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/gradient_bucket.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "halcyon/base/error.h"
#include "halcyon/parallel/reduce.h"

namespace halcyon::parallel {

GradientBucket::GradientBucket(std::vector<at::Tensor> parameters)
    : parameters_(std::move(parameters)) {
  std::vector<int64_t> sizes;
  sizes.reserve(parameters_.size());
  for (const auto& p : parameters_) sizes.push_back(p.numel());
  starts_ = starts_of(sizes);
  const auto marks = static_cast<int64_t>(parameters_.size());
  flat_ = at::zeros({starts_.back() + marks}, parameters_.front().options().requires_grad(false));
}

void GradientBucket::put(size_t i, const at::Tensor& gradient, bool mark) {
  const c10::NoGradGuard data_only;
  const auto place = this->gradient(i);
  if (gradient.defined()) {
    place.copy_(gradient);
  } else {
    place.zero_();
  }
  flat_.narrow(0, starts_.back() + static_cast<int64_t>(i), 1).fill_(mark ? 1 : 0);
}

void GradientBucket::reduce(const Group& group, const std::string& operation, int64_t tag,
                            double weight, double divisor) {
  const c10::NoGradGuard data_only;
  const auto gradients = flat_.narrow(0, 0, starts_.back());
  if (weight == 0) {
    gradients.zero_();
  } else if (weight != 1) {
    gradients.mul_(weight);
  }
  sum_in_place(flat_, group, operation, tag, divisor);
}

at::Tensor GradientBucket::gradient(size_t i) const {
  return flat_.narrow(0, starts_[i], starts_[i + 1] - starts_[i]).view(parameters_[i].sizes());
}

std::vector<bool> GradientBucket::marks() const {
  const auto words = flat_.narrow(0, starts_.back(), static_cast<int64_t>(parameters_.size()))
                         .to(at::kCPU, at::kDouble);
  std::vector<bool> marks;
  marks.reserve(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    marks.push_back(words.const_data_ptr<double>()[i] != 0);
  }
  return marks;
}

std::vector<std::vector<size_t>> cut_in_buckets(const std::vector<at::Tensor>& parameters,
                                                int64_t bucket_bytes) {
  struct Open {
    size_t bucket;
    int64_t bytes;
  };
  std::map<std::pair<at::ScalarType, std::string>, Open> open;
  std::vector<std::vector<size_t>> buckets;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto bytes = static_cast<int64_t>(parameters[i].nbytes());
    const auto kind = std::pair(parameters[i].scalar_type(), parameters[i].device().str());
    auto found = open.find(kind);
    if (found == open.end() || found->second.bytes + bytes > bucket_bytes) {
      buckets.emplace_back();
      found = open.insert_or_assign(kind, Open{buckets.size() - 1, 0}).first;
    }
    buckets[found->second.bucket].push_back(i);
    found->second.bytes += bytes;
  }
  return buckets;
}

void agree_on_tensors(Agreement& agreement, const char* name,
                      const std::vector<at::Tensor>& tensors) {
  agreement.same(fmt::format("number of {}", name).c_str(), static_cast<int64_t>(tensors.size()));
  std::vector<int64_t> words;
  for (const auto& t : tensors) {
    words.push_back(t.dim());
    words.insert(words.end(), t.sizes().begin(), t.sizes().end());
    words.push_back(static_cast<int64_t>(t.scalar_type()));
    words.push_back(static_cast<int64_t>(t.device().type()));
  }
  agreement.same_bits(fmt::format("shapes, dtypes and devices of {}", name).c_str(), words.data(),
                      words.size() * sizeof(int64_t));
}

Share share_of(const std::vector<double>& weights, int64_t rank, const std::string& operation) {
  for (size_t r = 0; r < weights.size(); ++r) {
    HALCYON_CHECK(std::isfinite(weights[r]) && weights[r] >= 0, operation,
                  "expected weights that are finite and not negative, got {} on rank {}",
                  weights[r], r);
  }
  const auto largest = *std::max_element(weights.begin(), weights.end());
  HALCYON_CHECK(largest > 0, operation, "expected a weight above zero on some rank, got none");
  double total = 0;
  for (const auto weight : weights) total += weight / largest;
  return {weights.at(rank) / largest, total};
}

}  // namespace halcyon::parallel
