// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/neighborhood.h"

#include "halcyon/nn/neighborhood_attention.h"
#include "halcyon/ops/neighborhood/sphere/neighborhood_healpix.h"
#include "halcyon/ops/neighborhood/sphere/seen_mask.h"
#include "halcyon/ops/neighborhood/unfused.h"
#include "halcyon/ops/tuning/environment.h"
#include "halcyon/ops/tuning/flops.h"
#include "halcyon/ops/tuning/switches.h"
#include "python/bindings.h"

namespace halcyon::python {
namespace py = pybind11;

namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;
using Numbers = std::vector<int64_t>;
using MaybeTensor = std::optional<at::Tensor>;

template <auto kOperation>
Pair attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
            Numbers kernel_size, Numbers dilation, Numbers stride, Numbers is_causal,
            Numbers periodic, MaybeTensor rpb, std::optional<double> scale,
            MaybeTensor additional_keys, MaybeTensor additional_values, std::string backend) {
  auto result =
      kOperation(query, key, value,
                 NeighborhoodOptions{std::move(kernel_size), std::move(dilation), std::move(stride),
                                     std::move(is_causal), std::move(periodic), std::move(rpb),
                                     scale, std::move(additional_keys),
                                     std::move(additional_values), std::move(backend)});
  return {std::move(result.out), std::move(result.lse)};
}

Pair attend_packed(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                   const Numbers& seqlens, Numbers kernel_size, Numbers dilation, Numbers stride,
                   Numbers is_causal, Numbers periodic, MaybeTensor rpb,
                   std::optional<double> scale, std::string backend) {
  auto result = na1d_varlen(query, key, value, seqlens,
                            {std::move(kernel_size),
                             std::move(dilation),
                             std::move(stride),
                             std::move(is_causal),
                             std::move(periodic),
                             std::move(rpb),
                             scale,
                             {},
                             {},
                             std::move(backend)});
  return {std::move(result.out), std::move(result.lse)};
}

std::tuple<at::Tensor, MaybeTensor> plain(const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& value, bool is_causal,
                                          std::optional<double> scale,
                                          std::optional<Numbers> seqlens_q,
                                          std::optional<Numbers> seqlens_kv, bool with_lse) {
  auto result = attention(
      query, key, value, {is_causal, scale, std::move(seqlens_q), std::move(seqlens_kv), with_lse});
  return {std::move(result.out),
          result.lse.defined() ? MaybeTensor(std::move(result.lse)) : std::nullopt};
}

NeighborhoodOptions unfused(Numbers kernel_size, Numbers dilation, Numbers stride,
                            Numbers is_causal, Numbers periodic, MaybeTensor rpb, MaybeTensor keys,
                            MaybeTensor values) {
  NeighborhoodOptions options;
  options.kernel_size = std::move(kernel_size);
  options.dilation = std::move(dilation);
  options.stride = std::move(stride);
  options.is_causal = std::move(is_causal);
  options.periodic = std::move(periodic);
  options.rpb = std::move(rpb);
  options.additional_keys = std::move(keys);
  options.additional_values = std::move(values);
  return options;
}

HealpixNeighborhood window(int64_t level, std::optional<double> radius_deg,
                           std::optional<int64_t> rings, const std::string& order,
                           MaybeTensor region) {
  return {level, radius_deg, rings, healpix::parse_order(order), std::move(region)};
}

py::dict stats(int64_t level, std::optional<double> radius_deg, std::optional<int64_t> rings,
               const std::string& order, MaybeTensor region) {
  const auto found = neighborhood_attention_healpix_stats(
      window(level, radius_deg, rings, order, std::move(region)));
  py::dict result;
  result["pixels"] = found.pixels;
  result["pairs"] = found.pairs;
  result["computed"] = found.computed;
  result["useful_share"] = found.useful_share;
  return result;
}

void add_tuning(py::module_& sub) {
  sub.def("use_fused_na", &use_fused_na);
  sub.def("is_fused_na_enabled", &is_fused_na_enabled);
  sub.def("use_kv_parallelism_in_fused_na", &use_kv_parallelism_in_fused_na);
  sub.def("is_kv_parallelism_in_fused_na_enabled", &is_kv_parallelism_in_fused_na_enabled);
  sub.def("set_memory_usage_preference", &set_memory_usage_preference);
  sub.def("get_memory_usage_preference", &get_memory_usage_preference);
  sub.def("enable_gemm_na", &enable_gemm_na);
  sub.def("disable_gemm_na", &disable_gemm_na);
  sub.def("is_gemm_na_enabled", &is_gemm_na_enabled);
  sub.def("enable_tiled_na", &enable_tiled_na);
  sub.def("disable_tiled_na", &disable_tiled_na);
  sub.def("is_tiled_na_enabled", &is_tiled_na_enabled);
  sub.def("has_cuda", &has_cuda);
  sub.def("get_device_cc", &get_device_cc);
  sub.def("has_half", &has_half);
  sub.def("has_bfloat", &has_bfloat);
  sub.def("has_fna", &has_fna);
  sub.def("has_gemm", &has_gemm);
  sub.def("has_tf32_gemm", &has_tf32_gemm);
  sub.def("has_fp32_gemm", &has_fp32_gemm);
  sub.def("has_fp64_gemm", &has_fp64_gemm);
  sub.def("fna_flop_count", &fna_flop_count);
  sub.def("na_qk_flop_count", &na_qk_flop_count);
  sub.def("na_av_flop_count", &na_av_flop_count);
}

}  // namespace

void add_neighborhood(py::module_& m) {
  auto sub = m.def_submodule("neighborhood");
  add_tuning(sub);
  sub.def("na1d", &attend<na1d>, Unlocked());
  sub.def("na2d", &attend<na2d>, Unlocked());
  sub.def("na3d", &attend<na3d>, Unlocked());
  sub.def("na1d_varlen", &attend_packed, Unlocked());
  sub.def("attention", &plain, Unlocked());
  sub.def(
      "qk",
      [](int rank, const at::Tensor& query, const at::Tensor& key, Numbers kernel, Numbers dilation,
         Numbers stride, Numbers causal, Numbers periodic, MaybeTensor more, MaybeTensor rpb) {
        return na_qk(
            rank, query, key,
            unfused(std::move(kernel), std::move(dilation), std::move(stride), std::move(causal),
                    std::move(periodic), std::move(rpb), std::move(more), {}));
      },
      Unlocked());
  sub.def(
      "av",
      [](int rank, const at::Tensor& attn, const at::Tensor& value, Numbers kernel,
         Numbers dilation, Numbers stride, Numbers causal, Numbers periodic, MaybeTensor more) {
        return na_av(rank, attn, value,
                     unfused(std::move(kernel), std::move(dilation), std::move(stride),
                             std::move(causal), std::move(periodic), {}, {}, std::move(more)));
      },
      Unlocked());
  sub.def(
      "neighborhood_attention_healpix",
      [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t level,
         std::optional<double> radius_deg, std::optional<int64_t> rings, const std::string& order,
         MaybeTensor region, std::optional<double> scale) {
        return neighborhood_attention_healpix(
            q, k, v, window(level, radius_deg, rings, order, std::move(region)), scale);
      },
      Unlocked());
  sub.def("neighborhood_attention_healpix_stats", &stats);
  sub.def("check_neighborhood_module", [](const std::string& name, int rank, Numbers kernel,
                                          Numbers dilation, Numbers stride, Numbers causal,
                                          Numbers periodic, bool rel_pos_bias) {
    check_neighborhood_module(name.c_str(), rank,
                              unfused(std::move(kernel), std::move(dilation), std::move(stride),
                                      std::move(causal), std::move(periodic), {}, {}, {}),
                              rel_pos_bias);
  });
  sub.def("check_healpix_window", [](const std::string& name, int64_t level,
                                     std::optional<double> radius_deg, std::optional<int64_t> rings,
                                     const std::string& order, MaybeTensor region) {
    check_healpix_window(name.c_str(), window(level, radius_deg, rings, order, std::move(region)));
  });
  sub.def(
      "healpix_seen",
      [](int64_t level, std::optional<double> radius_deg, std::optional<int64_t> rings,
         const std::string& order, MaybeTensor region) {
        return healpix_seen(window(level, radius_deg, rings, order, std::move(region)));
      },
      Unlocked());
  sub.def(
      "merge_attentions",
      [](const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& lses) {
        const auto result = merge_attentions(outputs, lses);
        return std::tuple(result.out, result.lse);
      },
      Unlocked());
}

}  // namespace halcyon::python
