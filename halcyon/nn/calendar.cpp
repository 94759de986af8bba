// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/calendar.h"

#include <ATen/Functions.h>

#include <numbers>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"

namespace halcyon {
namespace {

constexpr const char* kName = "CalendarEmbedding";
constexpr double kDay = 86400, kYearDays = 365.25;

at::ScalarType working_type(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  for (const auto* x : {&a, &b, &c})
    if (x->scalar_type() == at::kDouble) return at::kDouble;
  return at::kFloat;
}

}  // namespace

at::Tensor calendar_features(const at::Tensor& day_of_year, const at::Tensor& second_of_day,
                             const at::Tensor& lon, const at::Tensor& frequencies, double sign) {
  nn::check_rank(kName, "day_of_year", day_of_year, 2, "(B, T)");
  nn::check_rank(kName, "second_of_day", second_of_day, 2, "(B, T)");
  HALCYON_CHECK(day_of_year.sym_sizes() == second_of_day.sym_sizes(), kName,
                "expected day_of_year and second_of_day of one shape, got {} and {}",
                describe(day_of_year), describe(second_of_day));
  HALCYON_CHECK(!day_of_year.is_complex() && !second_of_day.is_complex() &&
                    day_of_year.device() == second_of_day.device(),
                kName, "expected real day_of_year and second_of_day on one device, got {} and {}",
                describe(day_of_year), describe(second_of_day));
  const auto type = working_type(lon, day_of_year, second_of_day);
  const auto ladder = frequencies.to(type);
  const auto offset = at::floor_divide(lon.to(type) * kDay, 360.0) * sign;
  const auto local = at::remainder(second_of_day.to(type).unsqueeze(-1) + offset, kDay);
  const auto day = (local / kDay).unsqueeze(-1) * ladder;  // (B, T, X, K)
  const auto year = at::remainder(day_of_year.to(type) / kYearDays, 1).unsqueeze(-1) * ladder;
  const auto shape = day.sym_sizes();
  const auto over_pixels = [&](const at::Tensor& x) { return x.unsqueeze(2).expand_symint(shape); };
  return at::cat({day.cos(), day.sin(), over_pixels(year.cos()), over_pixels(year.sin())}, -1);
}

CalendarEmbeddingImpl::CalendarEmbeddingImpl(const at::Tensor& lon, int64_t embed_channels,
                                             bool include_legacy_bug)
    : torch::nn::Module(kName), sign_(include_legacy_bug ? -1.0 : 1.0) {
  nn::check_rank(kName, "lon", lon, 1, "(X,)");
  HALCYON_CHECK(lon.is_floating_point(), kName, "expected a floating lon, got {}", describe(lon));
  nn::check_positive(kName, "embed_channels", embed_channels);
  lon_ = lon.detach();
  // single precision in every mode: the frequencies that models were trained with
  frequencies_ = at::arange(1, embed_channels + 1, at::kFloat) * (2 * std::numbers::pi);
}

at::Tensor CalendarEmbeddingImpl::channels_last(const at::Tensor& day_of_year,
                                                const at::Tensor& second_of_day) {
  if (day_of_year.defined() && lon_.device() != day_of_year.device()) {
    lon_ = lon_.to(day_of_year.device());
    frequencies_ = frequencies_.to(day_of_year.device());
  }
  return calendar_features(day_of_year, second_of_day, lon_, frequencies_, sign_);
}

at::Tensor CalendarEmbeddingImpl::forward(const at::Tensor& day_of_year,
                                          const at::Tensor& second_of_day) {
  return channels_last(day_of_year, second_of_day).permute({0, 3, 1, 2}).contiguous();
}

}  // namespace halcyon
