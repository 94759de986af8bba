// SPDX-License-Identifier: Apache-2.0
#include "halcyon/nn/tokenizer.h"

#include <ATen/Functions.h>

#include "halcyon/base/error.h"
#include "halcyon/nn/checks.h"
#include "halcyon/nn/parameters.h"

namespace halcyon {
namespace {

constexpr const char* kName = "HEALPixPatchTokenizer";
constexpr int64_t kCalendarParts = 4;

HEALPixPatchTokenizerOptions checked(HEALPixPatchTokenizerOptions options) {
  nn::check_positive(kName, "in_channels", options.in_channels);
  nn::check_positive(kName, "hidden_size", options.hidden_size);
  HALCYON_CHECK(options.hidden_size % kCalendarParts == 0, kName,
                "expected hidden_size divisible by {}, got {}", kCalendarParts,
                options.hidden_size);
  return options;
}

}  // namespace

HEALPixPatchTokenizerImpl::HEALPixPatchTokenizerImpl(HEALPixPatchTokenizerOptions options)
    : TokenizerBase(kName),
      options_(checked(std::move(options))),
      grid_(options_.level_fine, options_.level_coarse, options_.region) {
  const int64_t c = options_.in_channels, width = options_.hidden_size, p = grid_.patch();
  conv_ = register_module("conv", nn::PatchConv(std::vector{width, c, p, p}, width, c * p * p));
  pos_embed_ = register_parameter("pos_embed", nn::empty_parameter({grid_.coarse_size(), width}));
  nn::init_normal(pos_embed_);
  calendar_ = CalendarEmbedding(grid_.lon().to(at::kFloat), width / kCalendarParts);
}

at::Tensor HEALPixPatchTokenizerImpl::forward(const at::Tensor& x, const at::Tensor& second_of_day,
                                              const at::Tensor& day_of_year) {
  nn::check_rank(kName, "x", x, 4, "(B, C, T, X)");
  HALCYON_CHECK(x.size(1) == options_.in_channels, kName, "expected x of {} channels, got {}",
                options_.in_channels, describe(x));
  HALCYON_CHECK(x.size(3) == grid_.fine_size(), kName, "expected x of {} pixels, got {}",
                grid_.fine_size(), describe(x));
  nn::check_input(kName, "x", x, conv_->weight);
  for (const auto* time : {&second_of_day, &day_of_year}) {
    HALCYON_CHECK(time->defined() && time->sizes() == at::IntArrayRef({x.size(0), x.size(2)}),
                  kName, "expected second_of_day and day_of_year (B, T) = ({}, {}), got {}",
                  x.size(0), x.size(2), describe(*time));
  }
  const auto embed = [&](const at::Tensor& fields, const at::Tensor& second,
                         const at::Tensor& day) {
    const auto patches = linear_layer(
        grid_.gather(fields), conv_->weight.reshape({options_.hidden_size, -1}), conv_->bias);
    // in double throughout when the module is
    const auto type = pos_embed_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto calendar =
        calendar_->channels_last(day.to(x.device(), type), second.to(x.device(), type));
    return ((patches + calendar) + pos_embed_).to(pos_embed_.scalar_type());
  };
  at::Tensor tokens;
  if (at::GradMode::is_enabled() || x.size(2) < 2) {
    tokens = embed(x, second_of_day, day_of_year);
  } else {  // nothing is kept: a frame at a time, as the calendar takes several times the tokens
    tokens = at::empty({x.size(0), x.size(2), grid_.coarse_size(), options_.hidden_size},
                       pos_embed_.options());
    for (int64_t t = 0; t < x.size(2); ++t) {
      const auto of_frame = [t](const at::Tensor& time) { return time.narrow(1, t, 1); };
      tokens.narrow(1, t, 1).copy_(
          embed(x.narrow(2, t, 1), of_frame(second_of_day), of_frame(day_of_year)));
    }
  }
  return options_.separate_time_axis ? tokens : tokens.flatten(1, 2);
}

at::Tensor HEALPixPatchTokenizerImpl::tokenize(const at::Tensor& x, const std::any& kwargs) {
  const auto* times = std::any_cast<CalendarKwargs>(&kwargs);
  HALCYON_CHECK(times, kName, "expected tokenizer_kwargs second_of_day and day_of_year, got {}",
                kwargs.has_value() ? "others" : "none");
  return forward(x, times->second_of_day, times->day_of_year);
}

}  // namespace halcyon
