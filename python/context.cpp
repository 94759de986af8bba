// SPDX-License-Identifier: Apache-2.0
#include "halcyon/model/context.h"

#include "halcyon/base/error.h"
#include "halcyon/parallel/row_transfer.h"
#include "halcyon/parallel/window.h"
#include "python/bindings.h"
#include "python/group_caster.h"

// Context parallelism of the Python models: what the ranks agree on, and the ways between them.
namespace halcyon::python {
namespace py = pybind11;

namespace {

// Held by the interpreter's lock. A Python error as the one that C++ tells to all ranks.
[[noreturn]] void rethrow(const py::error_already_set& error) {
  const std::string text = py::str(error.value());
  if (error.matches(PyExc_NotImplementedError)) throw Error(ErrorKind::unsupported, text);
  if (error.matches(PyExc_ValueError)) throw Error(ErrorKind::argument, text);
  throw std::runtime_error(error.what());
}

// inputs() -> (x, tokens, whether a gradient is needed, t, condition, facts by name).
ContextInputs called(const py::function& inputs) {
  const py::gil_scoped_acquire locked;
  try {
    const auto given = inputs().cast<py::tuple>();
    ContextInputs told;
    told.x = given[0].cast<at::Tensor>();
    told.tokens = given[1].cast<at::Tensor>();
    told.requires_grad = given[2].cast<bool>();
    told.whole = {{"t", given[3].cast<at::Tensor>()},
                  {"condition", given[4].cast<std::optional<at::Tensor>>()}};
    const auto facts = given[5].cast<py::dict>();
    for (const char* name :
         {"number of blocks", "presence of temporal attention", "presence of cross_attn_kwargs",
          "presence of rotary tables", "training mode", "number of parameters that need gradients"})
      told.facts.emplace_back(name, facts[name].cast<int64_t>());
    return told;
  } catch (const py::error_already_set& error) {
    rethrow(error);
  }
}

ContextParallel context_of(const py::object& mode, const py::object& target) {
  const std::string name = py::str(mode);
  context_parallel(name, parallel::Group::alone());  // a wrong mode before a wrong target
  if (target.is_none()) {
    throw py::type_error(
        "[set_context_parallel] expected target as a torch.distributed.ProcessGroup, got None");
  }
  return *context_parallel(name, target.cast<parallel::Group>());
}

ContextLayout agree(const ContextParallel& self, const std::string& operation,
                    std::optional<int64_t> frames, const py::function& inputs) {
  const py::gil_scoped_release unlocked;
  return agree_on_context(self, operation == "HealDA" ? "HealDA" : "VideoDiT", frames,
                          [&] { return called(inputs); });
}

}  // namespace

void add_context(py::module_& m) {
  py::class_<ContextParallel>(m, "ContextParallel").def(py::init(&context_of)).def("agree", &agree);
  py::class_<ContextLayout>(m, "ContextLayout")
      .def_readonly("frames", &ContextLayout::frames)
      .def_property_readonly("is_cut",
                             [](const ContextLayout& self) { return self.ranks != nullptr; })
      .def(
          "joined_to_backward",
          [](const ContextLayout& self, const at::Tensor& h) {
            return parallel::joined_to_backward(h, self.any_requires_grad);
          },
          Unlocked())
      .def(
          "to_space",
          [](const ContextLayout& self, const at::Tensor& x) {
            // what the attention's projection would round anyway is rounded before it is sent
            return parallel::move(parallel::as_autocast(x), parallel::Way::to_space, self.ranks);
          },
          Unlocked())
      .def(
          "to_time",
          [](const ContextLayout& self, const at::Tensor& x) {
            return parallel::move(x, parallel::Way::to_time, self.ranks);
          },
          Unlocked());
}

}  // namespace halcyon::python
