// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <typeinfo>

namespace torch::nn {
class Module;
}

// Why convert() lets a module be, in Python's words.
namespace halcyon::parallel::convert_detail {

inline constexpr auto kPointwise = "1x1 convolution: every position by itself";
inline constexpr auto kAlready = "is domain-parallel already";
inline constexpr auto kNotKnown =
    "mixes positions, or may do so, and has no domain-parallel form: it sees this rank's part only";

// "Conv2d" of torch::nn::Conv2dImpl.
std::string class_of(const std::type_info& type);

// Of a module without children that has no domain-parallel form.
std::string reason_of_leaf(const torch::nn::Module& module, int64_t dim);

// Attention and transformers have children, but mix positions themselves.
bool mixes_by_itself(const torch::nn::Module& module);

// Lists of modules or parameters, which have no forward.
bool is_container(const torch::nn::Module& module);

}  // namespace halcyon::parallel::convert_detail
