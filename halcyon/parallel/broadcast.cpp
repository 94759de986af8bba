// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/broadcast.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "halcyon/base/error.h"
#include "halcyon/parallel/exchange.h"

namespace halcyon::parallel {
namespace {

// As bytes: not every backend knows every dtype.
at::Tensor bytes_of(const at::Tensor& contiguous) {
  return contiguous.view(-1).view(at::kByte);
}

}  // namespace

void take_from_owners(const std::vector<at::Tensor>& tensors, const std::vector<int64_t>& owners,
                      const Group& group, const std::string& operation, int64_t tag) {
  if (group.size() == 1) return;
  HALCYON_ASSERT(tensors.size() == owners.size());
  const c10::NoGradGuard data_only;
  Exchange exchange(group, operation, tag);
  std::vector<std::pair<at::Tensor, at::Tensor>> arriving;  // to be copied, and where
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto tensor = tensors[i].detach();
    if (owners[i] != group.rank()) {
      auto into = tensor;
      if (!tensor.is_contiguous()) {
        into = at::empty(tensor.sizes(), tensor.options());
        arriving.emplace_back(into, tensor);
      }
      exchange.receive(owners[i], bytes_of(into));
      // written behind autograd's back
      if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
      continue;
    }
    const auto bytes = bytes_of(tensor.contiguous());
    for (int64_t r = 0; r < group.size(); ++r) {
      if (r != group.rank()) exchange.send(r, bytes);
    }
  }
  exchange.post();
  exchange.wait();
  for (const auto& [from, into] : arriving) into.copy_(from);
}

}  // namespace halcyon::parallel
