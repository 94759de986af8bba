// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstdint>

// Operations of neighborhood attention: 2 for each multiplication and addition of Q K^T and of A V,
// or 1 with return_macs. Softmax, scale and bias do not count, additional tokens neither, and
// dilation and causality take nothing off (NATTEN 0.17's counts).
namespace halcyon {

// Shapes are (B, *, H, c) with is_heads_last, else (B, H, *, c), with one to three axes *;
// kernel_size, dilation and is_causal have one value for all axes or one an axis. Throws
// Error(argument) for other ranks, widths that differ, a kernel below 1 and a count of 2^63 or
// more.
int64_t fna_flop_count(c10::IntArrayRef q_shape, c10::IntArrayRef k_shape, c10::IntArrayRef v_shape,
                       c10::IntArrayRef kernel_size, c10::IntArrayRef dilation,
                       c10::IntArrayRef is_causal, bool is_heads_last, bool return_macs = false);
int64_t na_qk_flop_count(c10::IntArrayRef q_shape, c10::IntArrayRef k_shape,
                         c10::IntArrayRef kernel_size, c10::IntArrayRef dilation,
                         c10::IntArrayRef is_causal, bool is_heads_last, bool return_macs = false);
// a_shape is that of the weights, whose last axis is the window (and additional tokens).
int64_t na_av_flop_count(c10::IntArrayRef a_shape, c10::IntArrayRef v_shape,
                         c10::IntArrayRef kernel_size, c10::IntArrayRef dilation,
                         c10::IntArrayRef is_causal, bool is_heads_last, bool return_macs = false);

}  // namespace halcyon
