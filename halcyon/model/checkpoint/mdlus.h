// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "halcyon/model/checkpoint/blob.h"
#include "halcyon/model/checkpoint/file.h"

namespace halcyon::checkpoint {

// A `.mdlus` file: a zip, or the older tar (plain or gzipped), of model.pt, args.json and
// metadata.json. `place` names the bytes in messages. Throws Error(input).
Checkpoint read_mdlus(const Blob& bytes, const std::string& place);

// {"__name__": class, "__module__": ..., "__args__": {...}} into model_class and config; only
// classes that are a HealDA are taken.
void read_args(const nlohmann::json& args, Checkpoint& checkpoint, const Source& source);

// JSON of a bounded size. Throws Error(input) unless it is an object.
nlohmann::json read_json(const Blob& bytes, const Source& source);

}  // namespace halcyon::checkpoint
