// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/ops/film/backends.h"

namespace halcyon::film_detail {

at::ScalarType Inputs::accumulate() const {
  const bool wide = std::any_of(floats.begin(), floats.end(),
                                [](const auto& t) { return t.scalar_type() == at::kDouble; });
  return wide ? at::kDouble : at::kFloat;
}

at::ScalarType result_type(const Inputs& in) {
  const auto device = in.floats[kObs].device().type();
  const bool autocast =
      at::autocast::is_autocast_available(device) && at::autocast::is_autocast_enabled(device);
  const auto type =
      autocast ? at::autocast::get_autocast_dtype(device) : in.floats[kWeight2].scalar_type();
  return at::promote_types(type, in.floats[kObs].scalar_type());
}

void check_ids(const Inputs& in) {
  constexpr const char* kNames[] = {"obs_type", "channel", "platform"};
  for (size_t i = 0; i < in.ids.size(); ++i) {
    if (in.ids[i].numel() == 0) continue;
    const auto [low, high] = at::aminmax(in.ids[i]);
    const auto least = low.item<int64_t>(), most = high.item<int64_t>();
    const auto rows = in.floats[kTables + i].size(0);
    HALCYON_CHECK(least >= 0 && most < rows, "film_tokenizer", "expected {} in [0, {}), got {}",
                  kNames[i], rows, least < 0 ? least : most);
  }
}

at::Tensor composed(const Inputs& in) {
  const auto& f = in.floats;
  const auto type = f[kWeight1].scalar_type();
  std::vector<at::Tensor> parts{f[kMeta].to(type)};
  for (size_t i = 0; i < in.ids.size(); ++i)
    parts.push_back(at::embedding(f[kTables + i].to(type), in.ids[i]));
  const auto first = at::linear(at::cat(parts, 1), f[kWeight1], f[kBias1].to(type));
  const auto normed = at::layer_norm(first, {first.size(1)}, f[kNormWeight].to(first.scalar_type()),
                                     f[kNormBias].to(first.scalar_type()), in.eps);
  const auto film = at::linear(at::silu(normed).to(type), f[kWeight2].to(type), f[kBias2].to(type));
  const auto halves = film.chunk(2, 1);
  return at::addcmul(halves[1], halves[0], f[kObs].unsqueeze(1)).to(result_type(in));
}

}  // namespace halcyon::film_detail
