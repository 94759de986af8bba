// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/extension.h>

#include <any>
#include <memory>

#include "halcyon/model/video_dit.h"

namespace halcyon::python {

// The C++ half of one of our (de)tokenizers, or an adaptor that calls any other Python module's
// forward: forward(x, **tokenizer_kwargs) and forward(tokens, c).
std::shared_ptr<TokenizerBase> tokenizer_of(const pybind11::object& module);
std::shared_ptr<DetokenizerBase> detokenizer_of(const pybind11::object& module);

// tokenizer_kwargs in the form that the model's own tokenizer reads.
std::any tokenizer_kwargs(const VideoDiTImpl& model, const pybind11::object& given);

}  // namespace halcyon::python
