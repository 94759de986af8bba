// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

// What bfloat16 is worth on this processor. AMX, and AVX-512 with pairs of bfloat16 on AMD's, give
// products of bfloat16 at least twice float's rate. Intel's AVX-512 without AMX gives them half of
// it, and processors without either emulate them: there a product in float between two roundings is
// faster, and closer to the truth (bench/RESULTS.md, "bfloat16").
namespace halcyon {

// Asked once. HALCYON_FAST_BF16=0 or 1 in the environment decides instead of the processor.
bool has_fast_bf16();

// Whether it does so by AVX-512's products of pairs (vdpbf16ps), without AMX.
bool has_fast_bf16_pairs();

// The type that an operator of autocast's lower-precision list gives these inputs on a CPU: theirs,
// or autocast's where it is on. None where they differ and it is off.
std::optional<at::ScalarType> cpu_result_type(at::TensorList inputs);

// True where the operator's result is bfloat16, all inputs are that or float on the CPU, and the
// processor does better in float.
bool is_bf16_for_float(at::TensorList inputs);

}  // namespace halcyon
