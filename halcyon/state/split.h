// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "halcyon/state/fields.h"
#include "halcyon/state/read_fields.h"

namespace halcyon::state {

struct Interval {
  int64_t start, end;  // seconds since 1970; the end does not belong
  bool operator==(const Interval&) const = default;
};

enum class Purpose { training, validation, evaluation };
std::string_view name_of(Purpose purpose);

// Which times may be used for what. Whoever takes fields through the split cannot train on a time
// that is kept for evaluation, nor evaluate on one that was trained on.
class DataSplit {
 public:
  // Error(argument) for empty intervals, or intervals that meet across purposes.
  DataSplit(std::vector<Interval> training, std::vector<Interval> validation,
            std::vector<Interval> evaluation);

  bool allows(Purpose purpose, int64_t time) const;
  // Error(argument) naming the first time that the purpose may not see.
  void require(Purpose purpose, const std::vector<int64_t>& times) const;
  // Those of the times that the purpose may see.
  std::vector<int64_t> times(Purpose purpose, const std::vector<int64_t>& all) const;

  // The fields at the times, after require().
  Fields select(const Fields& fields, Purpose purpose, const std::vector<int64_t>& times) const;
  // All that the purpose may see; Error(input) when that is nothing.
  Fields select(const Fields& fields, Purpose purpose) const;
  // read_fields after require() of options.times; without them, all that the purpose may see.
  // Error(input) where a value is missing.
  Fields read(const std::filesystem::path& path, Purpose purpose, ReadOptions options = {}) const;

  const std::vector<Interval>& intervals(Purpose purpose) const;

 private:
  std::vector<Interval> intervals_[3];
};

}  // namespace halcyon::state
