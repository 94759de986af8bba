// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "halcyon/model/checkpoint/blob.h"
#include "halcyon/model/state_dict.h"

namespace halcyon::checkpoint {

// The tensors of a file that torch.save wrote from a state dict (the zip format since torch 1.6:
// <root>/data.pkl, <root>/data/<key>, little endian). Stored data that are aligned are used in
// place; all else is copied when it is read, and kept only as long as a tensor uses it.
//
// checks: expected CRC-32 of the whole archive, where an outer container holds one. All CRC-32s are
// verified here. Throws Error(input).
StoredState read_torch_archive(const Blob& bytes, std::shared_ptr<InflateBudget> budget,
                               const Source& source,
                               std::optional<std::uint32_t> expected_crc = std::nullopt);

}  // namespace halcyon::checkpoint
