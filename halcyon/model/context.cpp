// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/context.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "halcyon/base/error.h"
#include "halcyon/parallel/agreement.h"

namespace halcyon {
namespace {

constexpr const char* kAllToAll = "all_to_all";
constexpr const char* kRedistribute = "redistribute";

// An exception of a plugged-in module must reach the other ranks too.
ContextInputs told_to_all(const char* operation, const std::function<ContextInputs()>& inputs) {
  try {
    return inputs();
  } catch (const Error&) {
    throw;
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& e) {
    throw_error(ErrorKind::argument, operation, e.what());
  }
}

void compare_whole(parallel::Agreement& agreement, const char* name,
                   const std::optional<at::Tensor>& given) {
  const bool is_there = given && given->defined();
  agreement.same(fmt::format("presence of {}", name).c_str(), static_cast<int64_t>(is_there));
  if (!is_there) return;
  const auto values = given->detach().cpu().contiguous();
  agreement.same(fmt::format("number of elements of {}", name).c_str(), values.numel());
  agreement.same(fmt::format("dtype of {}", name).c_str(), values.scalar_type());
  agreement.same_bits(name, values.const_data_ptr(), values.nbytes());
}

void check_equal_parts(const char* operation, const parallel::TimeSpace& layout, int64_t pixels) {
  const auto& time = layout.time;
  const bool is_equal =
      std::all_of(time.begin(), time.end(), [&](auto frames) { return frames == time[0]; });
  HALCYON_CHECK(is_equal && time[0] > 0 && pixels % layout.group.size() == 0, operation,
                "expected frames and pixels that divide into {} equal parts for context "
                "parallelism by \"{}\", got {} frames on the ranks and {} pixels; \"{}\" takes "
                "parts of any sizes",
                layout.group.size(), kAllToAll, fmt::join(time, ", "), pixels, kRedistribute);
}

}  // namespace

std::optional<ContextParallel> context_parallel(const std::optional<std::string>& mode,
                                                const parallel::Group& target) {
  if (!mode) return std::nullopt;
  HALCYON_CHECK(*mode == kAllToAll || *mode == kRedistribute, "set_context_parallel",
                "expected a context parallel mode \"{}\", \"{}\" or none, got \"{}\"", kAllToAll,
                kRedistribute, *mode);
  return ContextParallel{*mode, target};
}

ContextLayout agree_on_context(const ContextParallel& context, const char* operation,
                               std::optional<int64_t> frames,
                               const std::function<ContextInputs()>& inputs) {
  const auto layout = std::make_shared<parallel::TimeSpace>();
  layout->operation = operation;
  layout->group = context.group;
  size_t frames_at = 0, grad_at = 0;
  int64_t pixels = 0;
  parallel::Agreement agreement(context.group, operation);
  agreement.prepare([&] {
    const auto given = told_to_all(operation, inputs);
    agreement.same("context parallel mode", context.mode);
    agreement.same_but("x", given.x, 2);
    agreement.same_but("the tokens", given.tokens, 1);
    for (const auto& [name, value] : given.facts) agreement.same(name, value);
    for (const auto& [name, tensor] : given.whole) compare_whole(agreement, name, tensor);
    agreement.same("gradient mode", static_cast<int64_t>(at::GradMode::is_enabled()));
    pixels = given.tokens.size(2);
    frames_at = agreement.each(given.tokens.size(1));
    grad_at = agreement.each(given.requires_grad);
  });
  agreement.post();
  agreement.finish();
  layout->tag = agreement.tag();
  layout->time = agreement.of_all(frames_at);
  layout->space = parallel::split_sizes(pixels, context.group);
  const auto total = std::accumulate(layout->time.begin(), layout->time.end(), int64_t{0});
  HALCYON_CHECK(!frames || total == *frames, operation,
                "expected x of {} frames on all ranks together, got {} ({})", *frames, total,
                fmt::join(layout->time, ", "));
  if (context.mode == kAllToAll) check_equal_parts(operation, *layout, pixels);
  ContextLayout agreed;
  agreed.frames = total;
  agreed.any_requires_grad = at::GradMode::is_enabled() && agreement.any(grad_at);
  if (context.group.size() > 1) agreed.ranks = layout;
  return agreed;
}

}  // namespace halcyon
