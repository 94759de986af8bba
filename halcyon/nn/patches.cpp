// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/patches.h"

#include <ATen/Functions.h>

#include "halcyon/base/error.h"
#include "halcyon/sphere/healpix.h"

namespace halcyon {
namespace {

constexpr int64_t kFaces = 12;

}  // namespace

PatchGrid::PatchGrid(int64_t level_fine, int64_t level_coarse, std::optional<Region> region) {
  HALCYON_CHECK(level_coarse >= 0 && level_fine <= healpix::kMaxLevel && level_coarse <= level_fine,
                "PatchGrid", "expected 0 <= level_coarse <= level_fine <= {}, got {} and {}",
                healpix::kMaxLevel, level_coarse, level_fine);
  const auto level = static_cast<int>(level_coarse), up = static_cast<int>(level_fine) - level;
  patch_ = int64_t{1} << up;
  coarse_side_ = int64_t{1} << level;
  if (!region || region->is_global()) {
    HALCYON_CHECK(!region || region->level() == level, "PatchGrid",
                  "expected a region of level {}, got level {}", level, region->level());
    coarse_size_ = healpix::npix(level);
    lon_ = std::get<0>(healpix::pix2ang(level, at::arange(coarse_size_, at::kLong)));
    return;
  }
  HALCYON_CHECK(region->level() == level && region->size() > 0, "PatchGrid",
                "expected a region of at least one pixel of level {}, got {} of level {}", level,
                region->size(), region->level());
  coarse_size_ = region->size();
  lon_ = std::get<0>(region->centres());
  children_ = region->children_index(up).reshape({-1});
  inverse_ = at::argsort(children_);
}

at::Tensor PatchGrid::gather(const at::Tensor& x) const {
  if (whole_sphere()) return patch_gather(x, coarse_side_, patch_);
  if (children_.device() != x.device()) children_ = children_.to(x.device());
  return patch_gather(x, coarse_side_, patch_, children_);
}

at::Tensor PatchGrid::scatter(const at::Tensor& patches) const {
  if (whole_sphere()) return patch_scatter(patches, coarse_side_, patch_);
  if (inverse_.device() != patches.device()) inverse_ = inverse_.to(patches.device());
  return patch_scatter(patches, coarse_side_, patch_, inverse_);
}

at::Tensor patch_gather(const at::Tensor& x, int64_t side, int64_t patch,
                        const std::optional<at::Tensor>& children) {
  const auto b = x.sym_size(0), c = x.sym_size(1), t = x.sym_size(2);
  const int64_t p = patch, n = side;
  if (!children) {
    return x.reshape_symint({b, c, t, kFaces, n, p, n, p})
        .permute({0, 2, 3, 4, 6, 1, 5, 7})
        .reshape_symint({b, t, kFaces * n * n, c * p * p});
  }
  const int64_t tokens = children->size(0) / (p * p);
  return x.index_select(3, *children)
      .reshape_symint({b, c, t, tokens, p * p})
      .permute({0, 2, 3, 1, 4})
      .reshape_symint({b, t, tokens, c * p * p});
}

at::Tensor patch_scatter(const at::Tensor& patches, int64_t side, int64_t patch,
                         const std::optional<at::Tensor>& inverse) {
  const int64_t p = patch, n = side;
  const auto b = patches.sym_size(0), t = patches.sym_size(1), c = patches.sym_size(3) / (p * p);
  if (!inverse) {
    return patches.reshape_symint({b, t, kFaces, n, n, c, p, p})
        .permute({0, 5, 1, 2, 3, 6, 4, 7})
        .reshape_symint({b, c, t, kFaces * n * n * p * p});
  }
  const int64_t tokens = inverse->size(0) / (p * p);
  return patches.reshape_symint({b, t, tokens, c, p * p})
      .permute({0, 3, 1, 2, 4})
      .reshape_symint({b, c, t, tokens * p * p})
      .index_select(3, *inverse);
}

}  // namespace halcyon
