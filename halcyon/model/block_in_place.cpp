// SPDX-License-Identifier: Apache-2.0
// A block without gradients, piece by piece: no branch is ever whole beside the hidden states.
#include <ATen/Functions.h>

#include <algorithm>

#include "halcyon/base/error.h"
#include "halcyon/model/block.h"
#include "halcyon/nn/checks.h"
#include "halcyon/parallel/time_space.h"
#include "halcyon/parallel/window.h"

namespace halcyon {
namespace {

constexpr const char* kName = "VideoDiTBlock.forward_in_place";

// Tokens of a piece, a frame of the production model: enough that products run at their full speed
// and that weights are seldom converted.
constexpr int64_t kTokens = 12288;

// f(first, count) of the items [0, all), so many at a time that they have at most kTokens tokens,
// but one at least. Several samples that pass as one are then never cut within.
template <class F>
void each_piece_of(int64_t all, int64_t tokens_of_item, const F& f) {
  const int64_t step = std::max<int64_t>(1, kTokens / std::max<int64_t>(tokens_of_item, 1));
  for (int64_t first = 0; first < all; first += step) f(first, std::min(step, all - first));
}

Modulation of_samples(const Modulation& m, int64_t first, int64_t count) {
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, first, count); };
  return {part(m.shift), part(m.scale), part(m.gate)};
}

// The mask of frames first .. first + count of all samples' frames, where they have masks of their
// own.
SpatialAttentionKwargs of_frames(const SpatialAttentionKwargs& kwargs, int64_t first,
                                 int64_t count) {
  const auto& mask = kwargs.attn_mask;
  if (!mask || !mask->defined() || mask->dim() < 4 || mask->size(0) == 1) return kwargs;
  return {mask->narrow(0, first, count)};
}

}  // namespace

void VideoDiTBlockImpl::forward_in_place(const at::Tensor& hidden_states, const at::Tensor& c,
                                         const SpatialAttentionKwargs& attn_kwargs,
                                         const std::any& cross_attn_kwargs,
                                         const RopeTables& temporal_attn_kwargs,
                                         const FramesOnRanks& ranks) {
  check(hidden_states, c, cross_attn_kwargs);
  HALCYON_CHECK(hidden_states.is_contiguous(), kName, "expected contiguous hidden_states, got {}",
                describe(hidden_states));
  HALCYON_CHECK(!is_training(), kName, "expected a block in eval mode, got one in training");
  const at::NoGradGuard no_grad;
  const auto modulations = modulations_for(hidden_states, c);
  const int64_t samples = hidden_states.size(0), frames = hidden_states.size(1),
                pixels = hidden_states.size(2);
  const auto all_tokens = hidden_states.flatten(1, 2).unsqueeze(1);  // (B, 1, T * X, C)
  // part: some tokens; branch(of the normalised part) is added to it.
  const auto advance = [&](const at::Tensor& part, const Modulation& m, const auto& branch) {
    part.copy_(added(part, branch(normed(part, m)), m));
  };
  // f(first, count, modulation) of samples: of many that are small, else of each.
  const auto each_samples = [&](const Modulation& m, int64_t tokens_of_sample, const auto& f) {
    each_piece_of(samples, tokens_of_sample, [&](int64_t first, int64_t count) {
      f(first, count, of_samples(m, first, count));
    });
  };
  auto next = modulations.begin() + 2;

  each_samples(modulations[0], frames * pixels, [&](int64_t b, int64_t n, const Modulation& m) {
    each_piece_of(frames, n * pixels, [&](int64_t first, int64_t count) {
      const auto kwargs = of_frames(attn_kwargs, b * frames + first, n * count);
      advance(hidden_states.narrow(0, b, n).narrow(1, first, count), m,
              [&](const auto& x) { return spatial(x, kwargs); });
    });
  });
  if (cross_attention_) {
    const auto& modulation = *next++;
    const auto kwargs_of = [&](int64_t first, int64_t count) {
      return cross_attention_->kwargs_of_pixels(cross_attn_kwargs, first, count);
    };
    if (!kwargs_of(0, 0).has_value()) {
      advance(hidden_states, modulation,
              [&](const auto& x) { return cross(x, cross_attn_kwargs); });
    } else {
      each_samples(modulation, frames * pixels, [&](int64_t b, int64_t n, const Modulation& m) {
        each_piece_of(frames * pixels, n, [&](int64_t first, int64_t count) {
          const auto kwargs = kwargs_of(b * frames * pixels + first, n * count);
          advance(all_tokens.narrow(0, b, n).narrow(2, first, count), m,
                  [&](const auto& x) { return cross(x, kwargs); });
        });
      });
    }
  }
  if (!temporal_attention_.is_empty()) {
    const auto& modulation = *next++;
    const auto attend = [&](const auto& x) { return temporal(x, temporal_attn_kwargs); };
    if (!ranks) {
      each_samples(modulation, frames * pixels, [&](int64_t b, int64_t n, const Modulation& m) {
        each_piece_of(pixels, n * frames, [&](int64_t first, int64_t count) {
          advance(hidden_states.narrow(0, b, n).narrow(2, first, count), m, attend);
        });
      });
    } else {
      // The attention's input goes where all frames are and its result comes back, as in forward().
      const auto type = parallel::as_autocast(hidden_states.narrow(0, 0, 0)).scalar_type();
      const auto branch = at::empty(hidden_states.sizes(), hidden_states.options().dtype(type));
      const auto each_token = [&](const auto& f) {
        each_samples(modulation, frames * pixels, [&](int64_t b, int64_t n, const Modulation& m) {
          each_piece_of(frames * pixels, n, [&](int64_t first, int64_t count) {
            f(all_tokens.narrow(0, b, n).narrow(2, first, count),
              branch.view(all_tokens.sizes()).narrow(0, b, n).narrow(2, first, count), m);
          });
        });
      };
      each_token([&](const at::Tensor& h, const at::Tensor& x, const Modulation& m) {
        x.copy_(normed(h, m));
      });
      const auto whole_time = parallel::move(branch, parallel::Way::to_space, ranks);
      each_piece_of(samples, whole_time.size(1) * whole_time.size(2), [&](int64_t b, int64_t n) {
        each_piece_of(whole_time.size(2), n * whole_time.size(1),
                      [&](int64_t first, int64_t count) {
                        const auto x = whole_time.narrow(0, b, n).narrow(2, first, count);
                        x.copy_(attend(x));
                      });
      });
      parallel::move_into(branch, whole_time, parallel::Way::to_time, *ranks);
      each_token([&](const at::Tensor& h, const at::Tensor& x, const Modulation& m) {
        h.copy_(added(h, x, m));
      });
    }
  }
  each_samples(modulations[1], frames * pixels, [&](int64_t b, int64_t n, const Modulation& m) {
    each_piece_of(frames * pixels, n, [&](int64_t first, int64_t count) {
      advance(all_tokens.narrow(0, b, n).narrow(2, first, count), m,
              [&](const auto& x) { return mlp(x); });
    });
  });
}

}  // namespace halcyon
