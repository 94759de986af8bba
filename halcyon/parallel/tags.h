// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Which messages belong together; c10d takes tags from 0 to below 2^31.
namespace halcyon::parallel {

// Headers of agreements, the texts of refusals, and a group's first meeting have tags of their own,
constexpr int64_t kHeaderTag = 1, kRefusalTag = 2, kNameTag = 3, kAnswerTag = 4;
// operations count up,
constexpr int64_t kFirstTag = 0x10000000, kTags = 0x20000000;
// and an operation's way back has its tag and this.
constexpr int64_t kAdjoint = 0x30000000;

}  // namespace halcyon::parallel
