// SPDX-License-Identifier: Apache-2.0
#include "halcyon/state/split.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/base/time.h"

namespace halcyon::state {
namespace {

constexpr Purpose kAll[] = {Purpose::training, Purpose::validation, Purpose::evaluation};

std::string describe(const std::vector<Interval>& intervals) {
  std::string text;
  for (const auto& [start, end] : intervals)
    text += fmt::format("{}{} until before {}", text.empty() ? "" : ", ", format_time(start),
                        format_time(end));
  return text.empty() ? "nothing" : text;
}

void require_complete(const Fields& fields, const std::filesystem::path& path) {
  const auto good = fields.data.isfinite();
  if (good.all().item<bool>()) return;
  const auto where = good.logical_not().nonzero()[0];
  const auto t = where[0].item<int64_t>(), v = where[1].item<int64_t>();
  throw_error(ErrorKind::input, "DataSplit",
              fmt::format("{}: expected {} without missing values, got {} of them at {}",
                          path.string(), fields.variables[static_cast<std::size_t>(v)].name,
                          good[t][v].logical_not().sum().item<int64_t>(),
                          format_time(fields.times[static_cast<std::size_t>(t)])));
}

}  // namespace

std::string_view name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::training:
      return "training";
    case Purpose::validation:
      return "validation";
    case Purpose::evaluation:
      return "evaluation";
  }
  HALCYON_ASSERT(false);
}

DataSplit::DataSplit(std::vector<Interval> training, std::vector<Interval> validation,
                     std::vector<Interval> evaluation)
    : intervals_{std::move(training), std::move(validation), std::move(evaluation)} {
  for (const Purpose a : kAll)
    for (const auto& one : intervals(a)) {
      HALCYON_CHECK(one.start < one.end, "DataSplit",
                    "expected {} to begin before it ends, got {} and {}", name_of(a),
                    format_time(one.start), format_time(one.end));
      for (const Purpose b : kAll)
        for (const auto& other : intervals(b))
          HALCYON_CHECK(a == b || one.end <= other.start || other.end <= one.start, "DataSplit",
                        "expected {} and {} apart, got both at {}", name_of(a), name_of(b),
                        format_time(std::max(one.start, other.start)));
    }
}

const std::vector<Interval>& DataSplit::intervals(Purpose purpose) const {
  return intervals_[static_cast<int>(purpose)];
}

bool DataSplit::allows(Purpose purpose, int64_t time) const {
  const auto& list = intervals(purpose);
  return std::any_of(list.begin(), list.end(), [time](const Interval& interval) {
    return interval.start <= time && time < interval.end;
  });
}

void DataSplit::require(Purpose purpose, const std::vector<int64_t>& times) const {
  for (const int64_t time : times) {
    if (allows(purpose, time)) continue;
    std::string keeper;
    for (const Purpose other : kAll)
      if (allows(other, time)) keeper = fmt::format(", which is kept for {}", name_of(other));
    throw_error(ErrorKind::argument, "DataSplit",
                fmt::format("expected times of {} ({}), got {}{}", name_of(purpose),
                            describe(intervals(purpose)), format_time(time), keeper));
  }
}

std::vector<int64_t> DataSplit::times(Purpose purpose, const std::vector<int64_t>& all) const {
  std::vector<int64_t> out;
  std::copy_if(all.begin(), all.end(), std::back_inserter(out),
               [&](int64_t time) { return allows(purpose, time); });
  return out;
}

Fields DataSplit::select(const Fields& fields, Purpose purpose,
                         const std::vector<int64_t>& wanted) const {
  require(purpose, wanted);
  return select_times(fields, wanted);
}

Fields DataSplit::select(const Fields& fields, Purpose purpose) const {
  const auto allowed = times(purpose, fields.times);
  HALCYON_CHECK_KIND(!allowed.empty(), input, "DataSplit",
                     "expected fields in the times of {} ({}), got none", name_of(purpose),
                     describe(intervals(purpose)));
  return select_times(fields, allowed);
}

Fields DataSplit::read(const std::filesystem::path& path, Purpose purpose,
                       ReadOptions options) const {
  if (options.times) require(purpose, *options.times);
  Fields fields = read_fields(path, options);
  if (!options.times) {
    HALCYON_CHECK_KIND(!times(purpose, fields.times).empty(), input, "DataSplit",
                       "{}: expected fields in the times of {}, got none", path.string(),
                       name_of(purpose));
    fields = select(fields, purpose);
  }
  require_complete(fields, path);
  return fields;
}

}  // namespace halcyon::state
