// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <torch/library.h>

#include "halcyon/nn/calendar.h"
#include "halcyon/nn/drop_rows.h"
#include "halcyon/nn/embedders.h"
#include "halcyon/nn/patches.h"
#include "halcyon/ops/rope.h"

// The formulas of the modules as torch.ops.halcyon.*, made of ATen operators: the Python modules
// call them.
namespace halcyon {
namespace {

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return apply_rope(x, cos, sin);
}

// alpha * obs + beta with alpha, beta the halves of modulation (N, 2 * out), obs (N,).
at::Tensor film(const at::Tensor& obs, const at::Tensor& modulation) {
  const auto parts = modulation.chunk(2, -1);
  return at::addcmul(parts[1], parts[0], obs.unsqueeze(1));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(halcyon, m) {
  const auto composite = c10::DispatchKey::CompositeImplicitAutograd;
  m.def(
      "calendar_features(Tensor day_of_year, Tensor second_of_day, Tensor lon, "
      "Tensor frequencies, float sign=1.0) -> Tensor",
      torch::dispatch(composite, TORCH_FN(calendar_features)));
  m.def("noise_features(Tensor t, Tensor freqs, bool cosines_first=False) -> Tensor",
        torch::dispatch(composite, TORCH_FN(noise_features)));
  m.def("drop_rows(Tensor x, float rate, bool rescale) -> Tensor",
        torch::dispatch(composite, TORCH_FN(drop_rows)));
  m.def("patch_gather(Tensor x, int side, int patch, Tensor? children=None) -> Tensor",
        torch::dispatch(composite, TORCH_FN(patch_gather)));
  m.def("patch_scatter(Tensor patches, int side, int patch, Tensor? inverse=None) -> Tensor",
        torch::dispatch(composite, TORCH_FN(patch_scatter)));
  m.def("film(Tensor obs, Tensor modulation) -> Tensor",
        torch::dispatch(composite, TORCH_FN(film)));
  m.def("rope_tables(int head_dim, int seq_len, float theta=100.0) -> (Tensor, Tensor)",
        torch::dispatch(composite, TORCH_FN(rope_tables)));
  m.def("apply_rope(Tensor x, Tensor cos, Tensor sin) -> Tensor",
        torch::dispatch(composite, TORCH_FN(rotated)));
}

}  // namespace halcyon
