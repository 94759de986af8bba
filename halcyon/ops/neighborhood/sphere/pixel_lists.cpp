// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/sphere/pixel_lists.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/ops/neighborhood/sphere/pixel_reach.h"
#include "halcyon/ops/neighborhood/sphere/pixel_tree.h"
#include "halcyon/sphere/healpix_pixel.h"

namespace halcyon::neighborhood {
namespace {

// Pixels along the NEST curve, and what the tensors call them.
struct Places {
  std::vector<int64_t> nest;  // ascending
  std::vector<int32_t> token;
};

Places places_of(const PixelWindow& window) {
  Places places;
  if (!window.region) {
    const int64_t total = healpix::npix(window.level);
    places.nest.resize(static_cast<std::size_t>(total));
    std::iota(places.nest.begin(), places.nest.end(), int64_t{0});
    places.token.reserve(static_cast<std::size_t>(total));
    for (int64_t p = 0; p < total; ++p) {
      const auto pixel = healpix::detail::from_nest(window.level, p);
      places.token.push_back(
          static_cast<int32_t>(healpix::detail::encode(window.order, window.level, pixel)));
    }
    return places;
  }
  const auto nest = healpix::convert(window.level, window.region->contiguous(), window.order,
                                     healpix::Order::nest);
  const auto [sorted, index] = nest.sort();
  const auto n = static_cast<std::size_t>(sorted.numel());
  places.nest.assign(sorted.const_data_ptr<int64_t>(), sorted.const_data_ptr<int64_t>() + n);
  const auto* token = index.const_data_ptr<int64_t>();
  places.token.assign(token, token + n);
  return places;
}

// What one block sees: places and the bits of those who see them, ascending.
using Seen = std::vector<std::pair<int32_t, uint16_t>>;

int block_size(const Places& places, int64_t block) {
  const auto left = static_cast<int64_t>(places.nest.size()) - block * kBlock;
  return static_cast<int>(std::min<int64_t>(left, kBlock));
}

class Disks {
 public:
  Disks(const Places& places, int level, double radius_deg)
      : places_(places),
        points_(unit_vectors(places, level)),
        tree_(points_, kBlock),
        radius_(radius_deg * M_PI / 180),
        cosine_(static_cast<float>(std::cos(radius_))),
        all_(radius_deg >= 180) {}

  Seen operator()(int64_t block) const {
    Seen seen;
    const int own = block_size(places_, block);
    tree_.each_near(block, all_ ? M_PI : radius_, [&](int64_t other) {
      const int size = block_size(places_, other);
      for (int k = 0; k < size; ++k) {
        const int64_t key = other * kBlock + k;
        uint32_t bits = 0;
        for (int l = 0; l < own; ++l) {
          const int64_t place = block * kBlock + l;
          if (all_ || place == key || sees(place, key)) bits |= 1u << l;
        }
        if (bits != 0) seen.emplace_back(static_cast<int32_t>(key), static_cast<uint16_t>(bits));
      }
    });
    return seen;
  }

 private:
  static std::vector<UnitVector> unit_vectors(const Places& places, int level) {
    std::vector<UnitVector> points;
    points.reserve(places.nest.size());
    for (const int64_t p : places.nest) {
      const auto at = healpix::detail::centre(level, healpix::detail::from_nest(level, p));
      const double lon = at.lon * M_PI / 180, lat = at.lat * M_PI / 180;
      points.push_back({static_cast<float>(std::cos(lat) * std::cos(lon)),
                        static_cast<float>(std::cos(lat) * std::sin(lon)),
                        static_cast<float>(std::sin(lat))});
    }
    return points;
  }
  bool sees(int64_t i, int64_t j) const {
    const auto &a = points_[static_cast<std::size_t>(i)], &b = points_[static_cast<std::size_t>(j)];
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] >= cosine_;
  }

  const Places& places_;
  std::vector<UnitVector> points_;
  PixelTree tree_;
  double radius_;
  float cosine_;
  bool all_;
};

// Bits spread from a block's pixels to their neighbours, ring by ring, over the whole sphere.
class Rings {
 public:
  Rings(const Places& places, int level, int64_t rings)
      : places_(places), level_(level), rings_(rings) {}

  Seen operator()(int64_t block) const {
    std::map<int64_t, uint16_t> bits;
    for (int l = 0; l < block_size(places_, block); ++l)
      bits[places_.nest[static_cast<std::size_t>(block * kBlock + l)]] |=
          static_cast<uint16_t>(1u << l);
    for (int64_t ring = 0; ring < rings_; ++ring) {
      auto next = bits;
      for (const auto& [nest, mask] : bits) {
        const auto pixel = healpix::detail::from_nest(level_, nest);
        for (int dx = -1; dx <= 1; ++dx) {
          for (int dy = -1; dy <= 1; ++dy) {
            const auto there = healpix::detail::step(level_, pixel, dx, dy);
            if (there.face >= 0) next[healpix::detail::to_nest(level_, there)] |= mask;
          }
        }
      }
      if (next == bits) break;  // everybody sees everything
      bits = std::move(next);
    }
    Seen seen;
    for (const auto& [nest, mask] : bits) {
      const auto at = std::lower_bound(places_.nest.begin(), places_.nest.end(), nest);
      if (at != places_.nest.end() && *at == nest)
        seen.emplace_back(static_cast<int32_t>(at - places_.nest.begin()), mask);
    }
    return seen;
  }

 private:
  const Places& places_;
  int level_;
  int64_t rings_;
};

template <class SeenBy>
PixelLists joined(const Places& places, const SeenBy& seen_by) {
  const int64_t blocks = (static_cast<int64_t>(places.nest.size()) + kBlock - 1) / kBlock;
  std::vector<Seen> parts(static_cast<std::size_t>(blocks));
  at::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) parts[static_cast<std::size_t>(b)] = seen_by(b);
  });
  PixelLists lists;
  lists.token = places.token;
  lists.first.push_back(0);
  for (const auto& part : parts) {
    for (const auto& [place, bits] : part) {
      lists.seen.push_back(places.token[static_cast<std::size_t>(place)]);
      lists.seen_by.push_back(bits);
      lists.pairs += std::popcount(bits);
    }
    lists.first.push_back(static_cast<int64_t>(lists.seen.size()));
  }
  return lists;
}

PixelLists build(const PixelWindow& window) {
  const auto places = places_of(window);
  if (places.nest.empty()) return {{}, {0}, {}, {}, 0};
  if (window.rings) return joined(places, Rings(places, window.level, *window.rings));
  return joined(places, Disks(places, window.level, window.radius_deg.value_or(180)));
}

// Who sees is symmetric: one pass over the run's own blocks tells both.
template <class SeenBy>
PixelReach reach(const Places& places, const std::vector<int64_t>& starts, int64_t run,
                 const SeenBy& seen_by) {
  const auto token = [&](int64_t place) -> int64_t {
    return places.token[static_cast<std::size_t>(place)];
  };
  const auto begin = starts[static_cast<std::size_t>(run)],
             end = starts[static_cast<std::size_t>(run) + 1];
  std::map<int64_t, uint16_t> own;  // of each block with some of the run: who they are
  for (int64_t place = 0; place < static_cast<int64_t>(places.token.size()); ++place) {
    if (begin <= token(place) && token(place) < end)
      own[place / kBlock] |= static_cast<uint16_t>(1u << (place % kBlock));
  }
  const std::vector<std::pair<int64_t, uint16_t>> blocks(own.begin(), own.end());
  std::vector<Seen> parts(blocks.size());
  at::parallel_for(0, static_cast<int64_t>(blocks.size()), 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      parts[static_cast<std::size_t>(i)] = seen_by(blocks[static_cast<std::size_t>(i)].first);
  });
  const auto seen = at::zeros({starts.back()}, at::kBool);
  auto* const is_seen = seen.mutable_data_ptr<bool>();
  std::vector<at::Tensor> seen_own;
  std::vector<bool*> is_seen_by;
  for (std::size_t r = 0; r + 1 < starts.size(); ++r) {
    seen_own.push_back(at::zeros({end - begin}, at::kBool));
    is_seen_by.push_back(seen_own.back().mutable_data_ptr<bool>());
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto [block, mask] = blocks[i];
    for (const auto& [place, bits] : parts[i]) {
      const int seeing = bits & mask;
      if (seeing == 0) continue;
      const auto there = token(place);
      is_seen[there] = true;
      const auto owner = std::upper_bound(starts.begin(), starts.end(), there) - starts.begin() - 1;
      auto* const flags = is_seen_by[static_cast<std::size_t>(owner)];
      for (int l = 0; l < kBlock; ++l) {
        if (seeing >> l & 1) flags[token(block * kBlock + l) - begin] = true;
      }
    }
  }
  for (auto& flags : seen_own) flags = flags.nonzero().flatten() + begin;
  return {seen.nonzero().flatten(), std::move(seen_own)};
}

bool same(const PixelWindow& a, const PixelWindow& b) {
  return a.level == b.level && a.radius_deg == b.radius_deg && a.rings == b.rings &&
         a.order == b.order && a.region.has_value() == b.region.has_value() &&
         (!a.region || a.region->equal(*b.region));
}

}  // namespace

void check_region(const char* operation, const PixelWindow& window) {
  if (!window.region || window.region->numel() == 0) return;
  const auto& region = *window.region;
  const int64_t pixels = healpix::npix(window.level);
  const auto [sorted, index] = region.sort();
  const auto least = sorted[0].item<int64_t>(), most = sorted[-1].item<int64_t>();
  HALCYON_CHECK(least >= 0 && most < pixels, operation,
                "expected a region of pixels in 0..{}, got {}", pixels - 1,
                least < 0 ? least : most);
  HALCYON_CHECK(!(sorted.diff() == 0).any().item<bool>(), operation,
                "expected a region of distinct pixels, got some of them twice");
}

std::shared_ptr<const PixelLists> pixel_lists(const PixelWindow& window, const char* operation) {
  static std::mutex mutex;
  static std::deque<std::pair<PixelWindow, std::shared_ptr<const PixelLists>>> kept;
  constexpr std::size_t kMost = 16;
  const std::lock_guard lock(mutex);
  for (const auto& [known, lists] : kept) {
    if (same(known, window)) return lists;
  }
  check_region(operation, window);
  auto copy = window;
  if (copy.region) copy.region = copy.region->clone();
  auto lists = std::make_shared<const PixelLists>(build(copy));
  kept.emplace_front(std::move(copy), lists);
  if (kept.size() > kMost) kept.pop_back();
  return lists;
}

std::shared_ptr<const PixelReach> pixel_reach(const PixelWindow& window,
                                              const std::vector<int64_t>& starts, int64_t run) {
  HALCYON_ASSERT(!window.region && starts.back() == healpix::npix(window.level));
  struct Known {
    PixelWindow window;
    std::vector<int64_t> starts;
    int64_t run;
    std::shared_ptr<const PixelReach> reach;
  };
  static std::mutex mutex;
  static std::deque<Known> kept;
  constexpr std::size_t kMost = 16;
  const std::lock_guard lock(mutex);
  for (const auto& known : kept) {
    if (same(known.window, window) && known.starts == starts && known.run == run)
      return known.reach;
  }
  const auto places = places_of(window);
  auto found = std::make_shared<const PixelReach>(
      window.rings ? reach(places, starts, run, Rings(places, window.level, *window.rings))
                   : reach(places, starts, run,
                           Disks(places, window.level, window.radius_deg.value_or(180))));
  kept.push_front({window, starts, run, found});
  if (kept.size() > kMost) kept.pop_back();
  return found;
}

}  // namespace halcyon::neighborhood
