// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/obs_context.h"

#include <ATen/ATen.h>

#include <utility>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/pixel_attention/gather.h"

namespace halcyon {

ObsContext::ObsContext(at::Tensor values, at::Tensor metadata, at::Tensor types,
                       at::Tensor channels, at::Tensor platforms, at::Tensor offsets,
                       int64_t longest, std::optional<PixelGroupMap> map)
    : obs(std::move(values)),
      float_metadata(std::move(metadata)),
      obs_type(std::move(types)),
      channel(std::move(channels)),
      platform(std::move(platforms)),
      cu_seqlens_k(std::move(offsets)),
      max_seqlen_k(longest),
      group_map(std::move(map)) {
  HALCYON_CHECK(cu_seqlens_k.defined() && cu_seqlens_k.dim() == 1, "ObsContext",
                "expected cu_seqlens_k of rank 1, got {}", describe(cu_seqlens_k));
}

ObsContext ObsContext::to(std::optional<at::Device> device, std::optional<at::ScalarType> dtype,
                          bool non_blocking) const {
  HALCYON_CHECK(!dtype || at::isFloatingType(*dtype), "ObsContext.to",
                "expected a floating dtype, got {}", c10::toString(*dtype));
  const auto moved = [&](const at::Tensor& t) {
    if (!t.defined()) return t;
    const bool cast = dtype && t.is_floating_point();
    return t.to(
        t.options().device(device.value_or(t.device())).dtype(cast ? *dtype : t.scalar_type()),
        non_blocking, /*copy=*/true);
  };
  ObsContext copy;
  copy.obs = moved(obs);
  copy.float_metadata = moved(float_metadata);
  copy.obs_type = moved(obs_type);
  copy.channel = moved(channel);
  copy.platform = moved(platform);
  copy.cu_seqlens_k = moved(cu_seqlens_k);
  copy.max_seqlen_k = max_seqlen_k;
  if (group_map) copy.group_map = group_map->to(device, {}, non_blocking);
  return copy;
}

ObsContext prepare_obs_context(const at::Tensor& obs, const at::Tensor& float_metadata,
                               const at::Tensor& obs_type, const at::Tensor& channel,
                               const at::Tensor& platform, const at::Tensor& flat_idx,
                               int64_t total_pixels, bool build_group_map,
                               double group_thresh_mult) {
  constexpr auto kName = "prepare_obs_context";
  check_floating(obs, 1, kName, "obs");
  HALCYON_CHECK_KIND(!under_transform(), unsupported, kName,
                     "expected a call outside of transforms of torch.func, got one inside");
  const int64_t rows = obs.size(0);
  check_floating(float_metadata, 2, kName, "float_metadata");
  HALCYON_CHECK(float_metadata.size(0) == rows, kName, "expected {} rows of float_metadata, got {}",
                rows, float_metadata.size(0));
  check_index(obs_type, rows, kName, "obs_type");
  check_index(channel, rows, kName, "channel");
  check_index(platform, rows, kName, "platform");
  check_index(flat_idx, rows, kName, "flat_idx");
  for (const auto* t : {&float_metadata, &obs_type, &channel, &platform, &flat_idx})
    check_device(*t, obs, kName, "every input");

  const auto [order, counts] = sort_and_pack(flat_idx, total_pixels);
  const auto sorted = [&order = order](const at::Tensor& t) { return gather_rows(t, order); };
  const auto offsets = counts_to_cu_seqlens(counts);
  std::optional<PixelGroupMap> map;
  if (build_group_map) map = build_pixel_group_map(offsets, group_thresh_mult);
  return {sorted(obs),
          sorted(float_metadata),
          sorted(obs_type),
          sorted(channel),
          sorted(platform),
          offsets,
          total_pixels > 0 ? counts.max().item<int64_t>() : 0,
          std::move(map)};
}

}  // namespace halcyon
