// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/healpix_self_attention.h"

#include <charconv>
#include <cmath>

#include "halcyon/base/describe.h"
#include "halcyon/base/error.h"
#include "halcyon/nn/neighborhood_attention_healpix.h"

namespace halcyon {
namespace {

constexpr const char* kName = "attention_backend";

// The whole of the text as a number, or none.
template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

HealpixNeighborhood parsed(std::string_view name) {
  const auto colon = name.find(':');
  const auto kind = name.substr(0, colon);
  const auto argument = colon == std::string_view::npos ? "" : name.substr(colon + 1);
  HealpixNeighborhood window;
  window.order = kind.ends_with("-nest") ? healpix::Order::nest : healpix::Order::pad_xy;
  if (kind.starts_with("rings")) {
    window.rings = number<int64_t>(argument);
    HALCYON_CHECK(window.rings && *window.rings >= 0, kName,
                  "expected {}:k with k rings, 0 or more, got \"{}\"", kind, name);
  } else {
    window.radius_deg = number<double>(argument);
    HALCYON_CHECK(window.radius_deg && *window.radius_deg > 0 && *window.radius_deg <= 180, kName,
                  "expected {}:R with a radius R above 0 up to 180 degrees, got \"{}\"", kind,
                  name);
  }
  return window;
}

}  // namespace

HealpixSelfAttentionImpl::HealpixSelfAttentionImpl(std::string_view name,
                                                   const SpatialAttentionOptions& options)
    : SelfAttentionImpl(std::string(name), options), window_(parsed(name)) {
  HALCYON_CHECK_KIND(!options.is_causal, unsupported, kName,
                     "expected no is_causal with {}, got it", name);
  const auto order = options.grid ? healpix::Order::pad_xy : options.token_order;
  HALCYON_CHECK_KIND(!order || *order == window_.order, unsupported, kName,
                     "expected a name for tokens in {} order, got \"{}\" for {}",
                     healpix::name_of(*order), name, healpix::name_of(window_.order));
  if (!options.grid) return;
  tokens_ = options.grid->size();
  window_.level = options.grid->level();
  if (!options.grid->is_global()) window_.region = options.grid->pixels();
}

void HealpixSelfAttentionImpl::check_call(const at::Tensor& x, const at::Tensor& attn_mask) const {
  HALCYON_CHECK_KIND(!attn_mask.defined(), unsupported, name(), "expected no attn_mask, got {}",
                     describe(attn_mask));
  if (tokens_) {
    HALCYON_CHECK(x.size(1) == *tokens_, name(), "expected x of {} tokens, got {}", *tokens_,
                  describe(x));
    return;
  }
  int level = 0;
  while (level < healpix::kMaxFieldLevel && healpix::npix(level) < x.size(1)) ++level;
  HALCYON_CHECK(healpix::npix(level) == x.size(1), name(),
                "expected x of 12 * 4^level tokens, got {}", describe(x));
}

at::Tensor HealpixSelfAttentionImpl::mix(const at::Tensor& qkv,
                                         const at::Tensor& /*attn_mask*/) const {
  const auto [q, k, v] = normalised(qkv);
  auto window = window_;
  if (!tokens_) window.level = healpix::level_of(q.size(1));
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  // under autocast norms may leave q and k in float
  const auto type = v.scalar_type();
  return attend_healpix(q.to(type), k.to(type), v, window, scale, weight_dropout());
}

}  // namespace halcyon
