// SPDX-License-Identifier: Apache-2.0
#include "halcyon/obs/same_station.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "halcyon/base/integers.h"

namespace halcyon::obs {
namespace {

constexpr double kDegrees = M_PI / 180;
constexpr double kRounding = 2e-5;  // degrees, of longitudes in single precision
constexpr int64_t kMinute = 60'000'000'000;

// Kinds of lists in a cell, besides one for each identifier (0 and up).
constexpr int64_t kUnnamed = -1, kAll = -2;

std::uint64_t mixed(std::uint64_t hash, std::uint64_t part) {
  hash = (hash ^ part) * 0x9E3779B97F4A7C15u;
  return hash ^ hash >> 29;
}

std::array<double, 3> on_sphere(double lat, double lon) {
  const double ring = std::cos(lat * kDegrees);
  return {ring * std::cos(lon * kDegrees), ring * std::sin(lon * kDegrees),
          std::sin(lat * kDegrees)};
}

// Calls visit(hash of the cell) for each cell that holds a point within radius of a place on the
// unit sphere. Cells are much larger, so mostly there is one.
template <class Visit>
void cells_around(double lat, double lon, double radius, std::uint64_t seed, Visit&& visit) {
  const double size = 16 * radius;
  const auto point = on_sphere(lat, lon);
  std::array<int64_t, 3> low, high;
  for (std::size_t k = 0; k < 3; ++k) {
    low[k] = static_cast<int64_t>(std::floor((point[k] - radius) / size));
    high[k] = static_cast<int64_t>(std::floor((point[k] + radius) / size));
  }
  for (int64_t x = low[0]; x <= high[0]; ++x)
    for (int64_t y = low[1]; y <= high[1]; ++y)
      for (int64_t z = low[2]; z <= high[2]; ++z) {
        auto hash = seed;
        for (const int64_t part : {x, y, z}) hash = mixed(hash, static_cast<std::uint64_t>(part));
        visit(hash);
      }
}

std::uint64_t seed_of(StationIndex::Bucket bucket, int64_t kind) {
  return mixed(bucket, static_cast<std::uint64_t>(kind));
}

// Of a box of twice the reach, on the unit sphere.
double radius_of(double reach) {
  return 1.5 * (reach + kRounding) * kDegrees;
}

}  // namespace

StationIndex::StationIndex(const Table& table, double reach)
    : reach_(reach),
      lat_(table.values<double>("lat")),
      lon_(table.values<double>("lon")),
      station_(table.values<int32_t>("station")) {
  const auto& names = table.column("station").names;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) unnamed_ = static_cast<int32_t>(i);
  }
}

int32_t StationIndex::station(int64_t row) const {
  const auto given = given_.find(row);
  return given != given_.end() ? given->second : station_[static_cast<std::size_t>(row)];
}

bool StationIndex::positioned(int64_t row) const {
  const auto i = static_cast<std::size_t>(row);
  return std::abs(lat_[i]) <= 90 && std::abs(lon_[i]) <= 1e6;
}

bool StationIndex::near(int64_t a, int64_t b, double reach) const {
  const auto i = static_cast<std::size_t>(a), j = static_cast<std::size_t>(b);
  const double limit = reach + kRounding;
  const double along = std::remainder(lon_[i] - lon_[j], 360.0);
  return std::abs(lat_[i] - lat_[j]) <= limit &&
         std::abs(along) * std::cos((lat_[i] + lat_[j]) / 2 * kDegrees) <= limit;
}

void StationIndex::put(int64_t row, Bucket bucket, int64_t kind, double reach) {
  const auto i = static_cast<std::size_t>(row);
  // only in the point's own cell: who looks visits all around
  const double size = 16 * radius_of(reach);
  auto hash = seed_of(bucket, kind);
  for (const double x : on_sphere(lat_[i], lon_[i]))
    hash = mixed(hash, static_cast<std::uint64_t>(static_cast<int64_t>(std::floor(x / size))));
  const auto [last, fresh] = cells_.try_emplace(hash, -1);
  entries_.push_back({row, last->second});
  last->second = static_cast<int64_t>(entries_.size()) - 1;
}

int64_t StationIndex::look(int64_t row, Bucket bucket, int64_t kind, double reach,
                           const std::function<bool(int64_t)>& fits) const {
  const auto i = static_cast<std::size_t>(row);
  int64_t first = -1;  // entries of a cell go from the last to the first
  cells_around(lat_[i], lon_[i], radius_of(reach), seed_of(bucket, kind), [&](std::uint64_t cell) {
    const auto found = cells_.find(cell);
    if (found == cells_.end()) return;
    for (int64_t e = found->second; e >= 0; e = entries_[static_cast<std::size_t>(e)].next) {
      const auto other = entries_[static_cast<std::size_t>(e)].row;
      if ((first < 0 || other < first) && near(row, other, reach) && fits(other)) first = other;
    }
  });
  return first;
}

int64_t StationIndex::find(int64_t row, Bucket bucket,
                           const std::function<bool(int64_t)>& fits) const {
  if (!positioned(row)) return -1;
  if (!named(row)) return look(row, bucket, kAll, kSamePlace, fits);
  const auto found = look(row, bucket, station(row), reach_, [&](int64_t other) {
    return station(other) == station(row) && fits(other);
  });
  if (found >= 0 || unnamed_ < 0) return found;
  return look(row, bucket, kUnnamed, kSamePlace,
              [&](int64_t other) { return !named(other) && fits(other); });
}

void StationIndex::add(int64_t row, Bucket bucket) {
  if (!positioned(row)) return;
  if (named(row)) {
    put(row, bucket, station(row), reach_);
  } else {
    put(row, bucket, kUnnamed, kSamePlace);
  }
  if (unnamed_ >= 0) put(row, bucket, kAll, kSamePlace);
}

void StationIndex::name(int64_t added, int64_t row, Bucket bucket) {
  if (named(added) || !named(row)) return;
  given_[added] = station(row);
  put(added, bucket, station(row), reach_);
}

Duplicates::Duplicates(const Table& table)
    : index_(table, kSamePlace),
      time_(table.values<int64_t>("time_ns")),
      pressure_(table.values<float>("pressure")),
      variable_(table.values<int32_t>("variable")) {}

std::uint64_t Duplicates::bucket(int64_t row, int64_t minute) const {
  const auto i = static_cast<std::size_t>(row);
  const auto level = std::isnan(pressure_[i]) ? 0 : std::bit_cast<std::uint32_t>(pressure_[i]);
  return mixed(mixed(static_cast<std::uint64_t>(minute), level),
               static_cast<std::uint32_t>(variable_[i]));
}

bool Duplicates::seen(int64_t row) {
  const auto time = time_[static_cast<std::size_t>(row)];
  const auto minute = floor_div(time, kMinute);
  const auto same = [&](int64_t other) {
    const auto i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(other);
    const bool level =
        pressure_[i] == pressure_[j] || (std::isnan(pressure_[i]) && std::isnan(pressure_[j]));
    return level && variable_[i] == variable_[j] && std::abs(time - time_[j]) < kMinute;
  };
  for (const int64_t shift : {0, -1, 1}) {
    const auto there = bucket(row, minute + shift);
    const auto found = index_.find(row, there, same);
    if (found < 0) continue;
    index_.name(found, row, there);
    return true;
  }
  index_.add(row, bucket(row, minute));
  return false;
}

}  // namespace halcyon::obs
