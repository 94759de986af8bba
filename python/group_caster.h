// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/extension.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "halcyon/parallel/group.h"

// A torch.distributed.ProcessGroup as halcyon::parallel::Group; None is torch.distributed's default
// group, or this process alone where it was not initialised.
namespace pybind11::detail {

template <>
struct type_caster<halcyon::parallel::Group> {
  PYBIND11_TYPE_CASTER(halcyon::parallel::Group, const_name("torch.distributed.ProcessGroup"));

  bool load(handle source, bool /*convert*/) {
    auto given = reinterpret_borrow<object>(source);
    if (given.is_none()) {
      const auto distributed = module_::import("torch.distributed");
      if (!distributed.attr("is_available")().cast<bool>() ||
          !distributed.attr("is_initialized")().cast<bool>()) {
        value = halcyon::parallel::Group::alone();
        return true;
      }
      given = distributed.attr("group").attr("WORLD");
    }
    c10d::ProcessGroup* process_group = nullptr;
    try {
      process_group = given.cast<c10d::ProcessGroup*>();
    } catch (const cast_error&) {
      throw type_error(
          "[parallel] expected group as a torch.distributed.ProcessGroup that this process belongs "
          "to, or None, got " +
          std::string(repr(type::of(given))));
    }
    value = c10::intrusive_ptr<c10d::ProcessGroup>::reclaim_copy(process_group);
    return true;
  }
};

}  // namespace pybind11::detail
