// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "halcyon/model/checkpoint/blob.h"
#include "halcyon/model/state_dict.h"

namespace halcyon::checkpoint {

// The tensors of a file that torch.save wrote from a state dict (the zip format since torch 1.6:
// <root>/data.pkl, <root>/data/<key>, little endian). Each reading of a tensor gives contiguous
// memory of its own, also where tensors share a storage in the file (tied weights, slices, expanded
// tensors). What all of them take together beyond what the file stores is spent from the budget.
//
// expected_crc: CRC-32 of the whole archive, where an outer container holds one. All CRC-32s are
// verified here. Throws Error(input).
StoredState read_torch_archive(const Blob& bytes, const std::shared_ptr<InflateBudget>& budget,
                               const Source& source,
                               std::optional<std::uint32_t> expected_crc = std::nullopt);

}  // namespace halcyon::checkpoint
