// SPDX-License-Identifier: Apache-2.0
#include "python/foreign_modules.h"

#include "python/arguments.h"

namespace halcyon::python {
namespace py = pybind11;

namespace {

// Python objects may be released only with the interpreter's lock.
std::shared_ptr<py::object> shared_object(const py::object& object) {
  return {new py::object(object), [](py::object* held) {
            const py::gil_scoped_acquire locked;
            delete held;
          }};
}

class ForeignTokenizer : public TokenizerBase {
 public:
  explicit ForeignTokenizer(const py::object& module)
      : TokenizerBase("ForeignTokenizer"), module_(shared_object(module)) {}

  at::Tensor tokenize(const at::Tensor& x, const std::any& kwargs) override {
    const py::gil_scoped_acquire locked;
    const auto* arguments = std::any_cast<std::shared_ptr<py::object>>(&kwargs);
    const auto keywords = arguments != nullptr && !(*arguments)->is_none()
                              ? py::reinterpret_borrow<py::dict>(**arguments)
                              : py::dict();
    return (*module_)(x, **keywords).cast<at::Tensor>();
  }

 private:
  std::shared_ptr<py::object> module_;
};

class ForeignDetokenizer : public DetokenizerBase {
 public:
  explicit ForeignDetokenizer(const py::object& module)
      : DetokenizerBase("ForeignDetokenizer"), module_(shared_object(module)) {}

  at::Tensor detokenize(const at::Tensor& tokens, const at::Tensor& c) override {
    const py::gil_scoped_acquire locked;
    return (*module_)(tokens, c).cast<at::Tensor>();
  }
  // as the model does for its own: the module may start from what it likes
  void initialize_weights() override {
    const py::gil_scoped_acquire locked;
    if (py::hasattr(*module_, "initialize_weights")) module_->attr("initialize_weights")();
  }

 private:
  std::shared_ptr<py::object> module_;
};

// The C++ module behind one of our Python modules, or nothing.
template <class Impl>
std::shared_ptr<Impl> ours(const py::object& module) {
  if (!py::hasattr(module, "_cpp")) return nullptr;
  const py::object cpp = module.attr("_cpp");
  return py::isinstance<Impl>(cpp) ? cpp.cast<std::shared_ptr<Impl>>() : nullptr;
}

}  // namespace

std::shared_ptr<TokenizerBase> tokenizer_of(const py::object& module) {
  if (auto own = ours<HEALPixPatchTokenizerImpl>(module)) return own;
  return std::make_shared<ForeignTokenizer>(module);
}

std::shared_ptr<DetokenizerBase> detokenizer_of(const py::object& module) {
  if (auto own = ours<HEALPixPatchDetokenizerImpl>(module)) return own;
  return std::make_shared<ForeignDetokenizer>(module);
}

std::any tokenizer_kwargs(const VideoDiTImpl& model, const py::object& given) {
  const auto tokenizer = model.named_children()["tokenizer"];
  if (std::dynamic_pointer_cast<ForeignTokenizer>(tokenizer)) return shared_object(given);
  if (given.is_none()) return {};
  CalendarKwargs kwargs;
  Arguments("tokenizer_kwargs", given)
      .read("second_of_day", kwargs.second_of_day)
      .read("day_of_year", kwargs.day_of_year)
      .finish();
  return kwargs;
}

}  // namespace halcyon::python
