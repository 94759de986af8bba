// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <vector>

namespace c10d {
class Backend;
class ProcessGroup;
}  // namespace c10d

namespace halcyon::parallel {

// The processes that share one tensor: a c10d process group, or this process alone. A cheap handle;
// copies speak of the same group. Ranks are ranks in the group.
class Group {
 public:
  // The default group: what init() made (launch.h), else this process alone.
  Group();
  // A group that the caller made, of gloo or NCCL; null is this process alone.
  Group(
      c10::intrusive_ptr<c10d::ProcessGroup> process_group);  // NOLINT(google-explicit-constructor)
  Group(const Group&);
  Group(Group&&) noexcept;
  Group& operator=(const Group&);
  Group& operator=(Group&&) noexcept;
  ~Group();

  // This process alone, whatever init() made.
  static Group alone();

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  // Null for a process alone.
  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const { return process_group_; }
  // What moves tensors of this kind of device; Error(argument) where the group has none.
  c10::intrusive_ptr<c10d::Backend> backend(c10::DeviceType device) const;
  bool has_backend(c10::DeviceType device) const;

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> process_group_;
  int64_t rank_ = 0;
  int64_t size_ = 1;
};

// The group that Group() means. It is not kept alive: whoever sets one takes it back (null) before
// it ends, so that no group outlives main().
void set_default_group(c10d::ProcessGroup* process_group);

// How an axis of n is cut where a function chooses: the rule of torch.tensor_split, by which the
// first n % N parts hold one more.
std::vector<int64_t> split_sizes(int64_t n, const Group& group = {});
// The same of any number of parts.
std::vector<int64_t> split_sizes(int64_t n, int64_t parts);
// Where each part begins, and the end of the last: one entry more than sizes.
std::vector<int64_t> starts_of(const std::vector<int64_t>& sizes);

}  // namespace halcyon::parallel
