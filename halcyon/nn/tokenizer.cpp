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
  const int64_t width = options_.hidden_size;
  const auto patches =
      linear_layer(grid_.gather(x), conv_->weight.reshape({width, -1}), conv_->bias);
  // in double throughout when the module is
  const auto type = pos_embed_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto calendar = calendar_->channels_last(day_of_year.to(x.device(), type),
                                                 second_of_day.to(x.device(), type));
  const auto tokens = ((patches + calendar) + pos_embed_).to(pos_embed_.scalar_type());
  return options_.separate_time_axis ? tokens : tokens.flatten(1, 2);
}

at::Tensor HEALPixPatchTokenizerImpl::tokenize(const at::Tensor& x, const std::any& kwargs) {
  const auto* times = std::any_cast<CalendarKwargs>(&kwargs);
  HALCYON_CHECK(times, kName, "expected tokenizer_kwargs second_of_day and day_of_year, got {}",
                kwargs.has_value() ? "others" : "none");
  return forward(x, times->second_of_day, times->day_of_year);
}

}  // namespace halcyon
