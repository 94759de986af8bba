// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/reduce_gradients.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <bit>
#include <unordered_set>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"
#include "halcyon/parallel/gradient_bucket.h"

namespace halcyon::parallel {
namespace {

constexpr int64_t kBucketBytes = 25 << 20;
constexpr const char* kOperation = "reduce_gradients";

std::vector<at::Tensor> without_repeats(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> out;
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const auto& p : parameters) {
    HALCYON_CHECK(p.defined(), kOperation, "expected parameters, got an undefined tensor");
    if (seen.insert(p.unsafeGetTensorImpl()).second) out.push_back(p);
  }
  return out;
}

}  // namespace

void reduce_gradients(const std::vector<at::Tensor>& given, const Group& group,
                      const std::string& op, double weight) {
  std::vector<at::Tensor> parameters;
  Agreement agreement(group, kOperation);
  size_t weight_at = 0;
  agreement.prepare([&] {
    HALCYON_CHECK(op == "sum" || op == "mean", kOperation,
                  "expected op \"sum\" or \"mean\", got \"{}\"", op);
    parameters = without_repeats(given);
    for (const auto& p : parameters) {
      HALCYON_CHECK(!p.grad().defined() || p.grad().layout() == at::kStrided, kOperation,
                    "expected dense gradients, got {}", c10::str(p.grad().layout()));
      HALCYON_CHECK(p.is_floating_point(), kOperation,
                    "expected parameters of a floating dtype, got {}", describe(p));
    }
    agreement.same("op", op);
    agree_on_tensors(agreement, "params", parameters);
    weight_at = agreement.each(std::bit_cast<int64_t>(weight));
  });
  agreement.post();
  agreement.finish();
  Share share{1, 1};
  if (op == "mean") {
    std::vector<double> weights;
    for (const auto bits : agreement.of_all(weight_at)) {
      weights.push_back(std::bit_cast<double>(bits));
    }
    share = share_of(weights, group.rank(), kOperation);
  }
  if (group.size() == 1) return;

  const c10::NoGradGuard data_only;
  for (const auto& members : cut_in_buckets(parameters, kBucketBytes)) {
    std::vector<at::Tensor> chosen;
    chosen.reserve(members.size());
    for (const auto i : members) chosen.push_back(parameters[i]);
    GradientBucket bucket(chosen);
    for (size_t i = 0; i < chosen.size(); ++i) {
      bucket.put(i, chosen[i].grad(), chosen[i].grad().defined());
    }
    bucket.reduce(group, kOperation, agreement.tag(), share.weight, share.total);
    const auto exists = bucket.marks();
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (!exists[i]) continue;
      auto& gradient = chosen[i].mutable_grad();
      if (!gradient.defined()) gradient = at::empty_like(chosen[i]);
      gradient.copy_(bucket.gradient(i));
    }
  }
}

}  // namespace halcyon::parallel
