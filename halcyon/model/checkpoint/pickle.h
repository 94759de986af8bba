// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

#include "halcyon/model/checkpoint/blob.h"

namespace halcyon::checkpoint {

// In bytes; a model of 32 blocks takes 0.2 MiB.
constexpr std::uint64_t kMaxPickle = std::uint64_t{8} << 20;

// One tensor of a pickled state dict: which storage, and how it lies in it (in elements).
struct PickledTensor {
  std::string name;
  std::string storage;  // the key of the storage: member data/<key> of the archive
  at::ScalarType dtype = at::kFloat;
  std::int64_t storage_numel = 0, offset = 0;
  std::vector<std::int64_t> sizes, strides;
};

// Reads the pickle (protocols 2 to 5) of a state dict as torch.save writes it: a dict or
// OrderedDict from names to tensors. It executes nothing: the opcodes are those that such a dict
// needs, and the only globals are collections.OrderedDict, torch._utils._rebuild_tensor_v2,
// torch._utils._rebuild_parameter and torch's storage classes, all of them built in. Every view is
// checked to lie inside its storage; an expanded one (a stride of 0) may have more elements than
// that. All else is refused with Error(input) that names the opcode or the global and its position.
std::vector<PickledTensor> read_state_dict_pickle(const Blob& pickle, const Source& source);

}  // namespace halcyon::checkpoint
