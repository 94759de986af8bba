// SPDX-License-Identifier: Apache-2.0
#include "halcyon/ops/neighborhood/tuned.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "halcyon/ops/tuning/autotuner.h"
#include "halcyon/ops/tuning/switches.h"

namespace halcyon::neighborhood {
namespace {

// Everything that the time of a tiling may depend on. Batches times heads are told apart by their
// power of two: beyond the number of threads they only repeat the work.
std::string problem_of(const Inputs& in) {
  std::string text;
  for (const auto& a : in.axes)
    text +=
        fmt::format("length {} kernel {} dilation {} stride {}{}{}, ", a.length, a.kernel,
                    a.dilation, a.stride, a.causal ? " causal" : "", a.periodic ? " periodic" : "");
  const auto heads = static_cast<uint64_t>(in.query.size(0) * in.key.size(-2));
  return text + fmt::format("{} x {} heads, widths {} and {}, {}{}, {} threads, memory {}{}",
                            std::bit_ceil(std::max<uint64_t>(heads, 1)),
                            in.query.size(-2) / std::max<int64_t>(in.key.size(-2), 1),
                            in.query.size(-1), in.value.size(-1),
                            c10::toString(in.query.scalar_type()), in.bias ? ", bias" : "",
                            at::get_num_threads(), get_memory_usage_preference(),
                            is_kv_parallelism_in_fused_na_enabled() ? ", KV parallel" : "");
}

// The default first. More slots than a window has are as many as it has.
std::vector<Tiling> tilings(const Inputs& in, bool thorough) {
  int64_t window = 1;
  for (const auto& axis : in.axes) window *= axis.kernel;
  std::vector<int64_t> slots{0}, bytes{0};
  for (const int64_t n : {1024, 256, 128, 64, 32}) {
    const bool common = n == 256 || n == 64;
    if (n < window && (thorough || common)) slots.push_back(n);
  }
  for (const int64_t part : {2, 4, 8}) {
    if (thorough || part == 4) bytes.push_back(packed_bytes() / part);
  }
  std::vector<Tiling> all;
  for (const auto s : slots) {
    for (const auto b : bytes) all.push_back({s, b});
  }
  return all;
}

template <class F>
auto with_tuned(tuning::Pass pass, const Inputs& in, const F& run) {
  const auto options = tuning::active(pass);
  if (!options || in.query.numel() == 0) return run(Tiling{});
  const auto candidates = tilings(in, options->thorough);
  tuning::Question question{fmt::format("na{}d {}", in.axes.size(),
                                        pass == tuning::Pass::forward ? "forward" : "backward"),
                            problem_of(in),
                            {}};
  for (const auto& t : candidates)
    question.candidates.push_back(fmt::format("slots {} bytes {}", t.slots, t.bytes));
  const auto best = tuning::fastest(question, *options, [&](std::size_t i) { run(candidates[i]); });
  return run(candidates[best]);
}

}  // namespace

Output forward_tuned(const Inputs& in) {
  return with_tuned(tuning::Pass::forward, in,
                    [&](const Tiling& tiling) { return forward_tiled(in, cpu_level(), tiling); });
}

Gradients backward_tuned(const Inputs& in, const at::Tensor& lse, const at::Tensor& grad_out,
                         const at::Tensor& delta) {
  return with_tuned(tuning::Pass::backward, in, [&](const Tiling& tiling) {
    return backward_tiled(in, lse, grad_out, delta, cpu_level(), tiling);
  });
}

}  // namespace halcyon::neighborhood
