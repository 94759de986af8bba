// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace halcyon {

// The candidate that name is most probably a misspelling of, or "" when none is near. Distance: the
// fewest insertions, deletions, substitutions and swaps of neighbours (optimal string alignment),
// blind to case and to '-' against '_'.
std::string nearest(std::string_view name, std::span<const std::string> candidates);

// What helps the user behind "unknown key 'x'": ", did you mean 'y'?", else ", expected one of: a,
// b", or "" without candidates.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

}  // namespace halcyon
