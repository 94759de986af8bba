// SPDX-License-Identifier: Apache-2.0
// What stands around each branch of a block, beside the composition of ATen operators.
#include "halcyon/ops/adaln/adaln.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/layer.h"

namespace halcyon::bench {
namespace {

struct Shape {
  int64_t frames, pixels, width;
};

at::Tensor norm_of_parts(const Named& p) {
  const auto& x = p.at("x");
  return modulate(at::layer_norm(x, {x.size(-1)}, {}, {}, 1e-6), p.at("shift"), p.at("scale"));
}
at::Tensor gate_of_parts(const Named& p) {
  return at::addcmul(p.at("x"), p.at("gate").unsqueeze(1).unsqueeze(1), p.at("branch"));
}

Layer layer_of(Shape s, bool norm, bool parts) {
  Layer layer;
  const auto state = [&] { return torch::randn({1, s.frames, s.pixels, s.width}); };
  const auto condition = [&] { return torch::randn({1, s.width}); };
  auto& p = layer.leaves;
  p["x"] = state();
  if (norm) {
    p["shift"] = condition();
    p["scale"] = condition();
  } else {
    p["branch"] = state();
    p["gate"] = condition();
  }
  const auto by_parts = norm ? norm_of_parts : gate_of_parts;
  layer.reference = [by_parts](Named& q) { return by_parts(q); };
  layer.forward = [=, leaves = p] {
    if (parts) return by_parts(leaves);
    return norm ? norm_modulate(leaves.at("x"), leaves.at("shift"), leaves.at("scale"), 1e-6)
                : gated_residual(leaves.at("x"), leaves.at("branch"), leaves.at("gate"));
  };
  const auto elements = static_cast<double>(s.frames * s.pixels * s.width);
  // forward: norm reads x and writes, gate reads two; backward: norm reads two and writes one, and
  // the gate as well (the residual's gradient is the result's)
  layer.bytes = 4 * elements * (norm ? 2 : 3);
  layer.backward_bytes = 4 * elements * 3;
  return layer;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  for (const Shape s : {Shape{4, 768, 512}, Shape{4, 3072, 256}, Shape{2, 12288, 1536}}) {
    for (const bool norm : {true, false}) {
      for (const bool parts : {false, true}) {
        add_layer(fmt::format("{}/T{}_X{}_C{}{}", norm ? "norm_modulate" : "gated_residual",
                              s.frames, s.pixels, s.width, parts ? "_aten" : ""),
                  [=] { return layer_of(s, norm, parts); }, {true, false});
      }
    }
  }
  return run(argc, argv);
}
