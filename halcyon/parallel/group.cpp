// SPDX-License-Identifier: Apache-2.0
#include "halcyon/parallel/group.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <atomic>

#include "halcyon/base/error.h"

namespace halcyon::parallel {
namespace {

std::atomic<c10d::ProcessGroup*> default_group{nullptr};

}  // namespace

void set_default_group(c10d::ProcessGroup* process_group) {
  default_group = process_group;
}

Group::Group()
    : Group(c10::intrusive_ptr<c10d::ProcessGroup>::reclaim_copy(default_group.load())) {}

Group::Group(c10::intrusive_ptr<c10d::ProcessGroup> process_group)
    : process_group_(std::move(process_group)) {
  if (!process_group_) return;
  rank_ = process_group_->getRank();
  size_ = process_group_->getSize();
}

Group::Group(const Group&) = default;
Group::Group(Group&&) noexcept = default;
Group& Group::operator=(const Group&) = default;
Group& Group::operator=(Group&&) noexcept = default;
Group::~Group() = default;

Group Group::alone() {
  return {c10::intrusive_ptr<c10d::ProcessGroup>()};
}

bool Group::has_backend(c10::DeviceType device) const {
  if (!process_group_) return false;
  for (const auto& one : process_group_->getDeviceTypes()) {
    if (one.type() == device) return true;
  }
  return false;
}

c10::intrusive_ptr<c10d::Backend> Group::backend(c10::DeviceType device) const {
  HALCYON_CHECK(has_backend(device), "parallel",
                "expected a group with a backend for tensors on {}, got one without (gloo moves "
                "tensors of the CPU, NCCL those of GPUs)",
                c10::DeviceTypeName(device, true));
  return process_group_->getBackend(device);
}

std::vector<int64_t> split_sizes(int64_t n, const Group& group) {
  return split_sizes(n, group.size());
}

std::vector<int64_t> split_sizes(int64_t n, int64_t parts) {
  HALCYON_CHECK(n >= 0 && parts > 0, "split_sizes",
                "expected a length that is not negative and at least one part, got {} and {}", n,
                parts);
  std::vector<int64_t> sizes(parts, n / parts);
  for (int64_t i = 0; i < n % parts; ++i) ++sizes[i];
  return sizes;
}

std::vector<int64_t> starts_of(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> starts{0};
  for (const auto size : sizes) starts.push_back(starts.back() + size);
  return starts;
}

}  // namespace halcyon::parallel
