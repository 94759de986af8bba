// SPDX-License-Identifier: Apache-2.0
// The products of a linear layer by each library: the result with its bias, the gradient of the
// input and of the weight. What default_routes() rests on.
#include <fmt/format.h>
#include <torch/torch.h>

#include "bench/support/compare.h"
#include "bench/support/harness.h"
#include "halcyon/ops/linear/routes.h"

namespace halcyon::bench {
namespace {

using linear_detail::Library;

struct Shape {
  int64_t rows, in, out;
};

struct State {
  at::Tensor x, weight, bias, grad, result;
};

Case product(Shape s, int pass, Library library) {
  torch::manual_seed(1);
  const auto state = std::make_shared<State>(State{torch::randn({s.rows, s.in}),
                                                   torch::randn({s.out, s.in}),
                                                   torch::randn({s.out}),
                                                   torch::randn({s.rows, s.out}),
                                                   {}});
  Case c;
  c.flops = 2.0 * static_cast<double>(s.rows * s.in * s.out);
  c.run = [=] {
    auto& [x, weight, bias, grad, result] = *state;
    result = pass == 0   ? linear_detail::forward(x, weight, bias, Activation::none, library)
             : pass == 1 ? linear_detail::input_gradient(grad, weight, library)
                         : linear_detail::weight_gradient(grad, x, library);
  };
  c.deviation = [=] {
    const auto& [x, weight, bias, grad, result] = *state;
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const auto expected = pass == 0   ? at::linear(wide(x), wide(weight), wide(bias))
                          : pass == 1 ? at::mm(wide(grad), wide(weight))
                                      : at::mm(wide(grad).t(), wide(x));
    return deviation(result, expected, 2e-5);
  };
  return c;
}

}  // namespace
}  // namespace halcyon::bench

int main(int argc, char** argv) {
  using namespace halcyon::bench;
  constexpr const char* kPasses[]{"fwd", "input", "weight"};
  for (const Shape s : {Shape{3072, 512, 1536}, Shape{3072, 512, 512}, Shape{3072, 512, 2048},
                        Shape{3072, 2048, 512}, Shape{12288, 256, 768}, Shape{12288, 1024, 256}}) {
    for (int pass = 0; pass < 3; ++pass) {
      for (const auto& [library, name] :
           {std::pair(Library::aten, "aten"), {Library::onednn, "onednn"}, {Library::own, "own"}}) {
        if (library == Library::onednn && !halcyon::linear_detail::has_onednn()) continue;
        if (library == Library::own && pass != 2) continue;
        add(fmt::format("linear/{}x{}_to_{}_{}/{}", s.rows, s.in, s.out, name, kPasses[pass]),
            [=, library = library] { return product(s, pass, library); });
      }
    }
  }
  return run(argc, argv);
}
