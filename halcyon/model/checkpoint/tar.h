// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "halcyon/model/checkpoint/blob.h"

namespace halcyon::checkpoint {

// True when the bytes begin with a tar header whose checksum is right.
bool looks_like_tar(const Blob& bytes);

// The regular files of a tar archive (POSIX ustar and pax, GNU long names and base-256 sizes, old
// v7), each a part of it that is not read yet. Folders are passed over. Error(input) for a wrong
// header checksum, a size beyond the archive, a missing end mark, links and devices, forbidden
// names and names that occur twice.
std::map<std::string, Blob> read_tar(const Blob& bytes, const Source& source);

}  // namespace halcyon::checkpoint
