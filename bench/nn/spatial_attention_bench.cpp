// SPDX-License-Identifier: Apache-2.0
// Attention among all pixels of a frame, with RMS-normalised queries and keys.
#include <torch/torch.h>

#include "bench/support/layer.h"
#include "bench/support/layer_reference.h"
#include "halcyon/nn/self_attention.h"

namespace halcyon::bench {
namespace {

Layer spatial_attention(int64_t frames, int64_t pixels, int64_t width, int64_t heads) {
  SelfAttention module(width, heads, 0.0, 0.0, "RMSNorm", /*qk_norm_affine=*/false);
  Layer layer;
  layer.leaves = parameters_of(*module);
  const auto x = layer.leaves["x"] = torch::randn({frames, pixels, width});
  layer.forward = [=]() mutable { return module->forward(x); };
  layer.reference = [=](Named& p) { return reference::spatial_attention(p, "", p["x"], heads); };
  // qkv and proj; scores and weighted sums
  layer.flops = 8.0 * static_cast<double>(frames * pixels * width * width) +
                4.0 * static_cast<double>(frames * pixels * pixels * width);
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  add_layer("SelfAttention/4x768_C512_H8", [] { return spatial_attention(4, 768, 512, 8); });
  add_layer("SelfAttention/1x3072_C512_H8", [] { return spatial_attention(1, 3072, 512, 8); });
  return run(argc, argv);
}
