// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/pixel_attention/pixel_attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "halcyon/ops/checks.h"
#include "halcyon/ops/dispatch.h"
#include "halcyon/ops/pixel_attention/backends.h"

namespace halcyon {
namespace {

constexpr auto kName = "pixel_attention";

void check_weight(const at::Tensor& w, const c10::SymInt& rows, const c10::SymInt& columns,
                  const at::Tensor& q, const char* name) {
  check_floating(w, 2, kName, name);
  check_shape(w, {rows, columns}, kName, name);
  check_device(w, q, kName, name);
}

void check_bias(const std::optional<at::Tensor>& b, const c10::SymInt& length, const at::Tensor& q,
                const char* name) {
  if (!b) return;
  check_floating(*b, 1, kName, name);
  HALCYON_CHECK(b->sym_size(0) == length, kName, "expected {} of length {}, got {}", name,
                length.guard_int(__FILE__, __LINE__), b->sym_size(0).guard_int(__FILE__, __LINE__));
  check_device(*b, q, kName, name);
}

}  // namespace

at::Tensor pixel_attention(const at::Tensor& Q, const at::Tensor& tokens, const at::Tensor& W_k,
                           const at::Tensor& W_v, const at::Tensor& cu_seqlens_k,
                           int64_t max_seqlen_k, int64_t n_kv_heads, std::optional<double> scale,
                           const std::optional<at::Tensor>& B_k,
                           const std::optional<at::Tensor>& B_v, bool force_fp32,
                           const std::optional<PixelGroupMap>& group_map) {
  check_floating(Q, 3, kName, "Q");
  HALCYON_CHECK(Q.sym_size(1) > 0 && Q.sym_size(2) > 0, kName,
                "expected heads and a head width, got Q {}", describe(Q));
  check_floating(tokens, 2, kName, "tokens");
  HALCYON_CHECK(tokens.sym_size(1) > 0, kName, "expected a token width of 1 or more, got tokens {}",
                describe(tokens));
  check_device(tokens, Q, kName, "tokens");
  HALCYON_CHECK(n_kv_heads >= 1 && Q.sym_size(1) % n_kv_heads == 0, kName,
                "expected n_kv_heads to divide the {} query heads, got {}",
                Q.sym_size(1).guard_int(__FILE__, __LINE__), n_kv_heads);
  const auto kv_width = Q.sym_size(2) * n_kv_heads;
  check_weight(W_k, kv_width, tokens.sym_size(1), Q, "W_k");
  check_weight(W_v, kv_width, tokens.sym_size(1), Q, "W_v");
  check_bias(B_k, kv_width, Q, "B_k");
  check_bias(B_v, kv_width, Q, "B_v");
  check_index(cu_seqlens_k, Q.sym_size(0) + 1, kName, "cu_seqlens_k");
  HALCYON_CHECK(max_seqlen_k >= 0, kName, "expected max_seqlen_k >= 0, got {}", max_seqlen_k);
  if (group_map) {
    check_index(group_map->program_ptr, {}, kName, "group_map.program_ptr");
    check_index(group_map->program_pixels, {}, kName, "group_map.program_pixels");
  }
  const double factor = scale.value_or(
      1.0 / std::sqrt(static_cast<double>(Q.sym_size(2).guard_int(__FILE__, __LINE__))));
  (void)force_fp32;
  using Kernel = std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
      const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, const at::Tensor&,
      int64_t, double);
  static const auto op = operator_named<Kernel>("halcyon::_pixel_attention");
  return std::get<0>(op.call(Q, tokens, W_k, W_v, B_k, B_v, cu_seqlens_k, n_kv_heads, factor));
}

}  // namespace halcyon
