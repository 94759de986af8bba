# SPDX-License-Identifier: Apache-2.0
"""Operations of neighborhood attention (halcyon/ops/tuning/flops.h), and torch's counter told of them."""

import math as _math

import torch as _torch
from torch.utils.flop_counter import register_flop_formula as _register

from . import _C
from .neighborhood import _flag, _options


def _shape(shape):
    return [int(size) for size in shape]


def _count(operation, shapes, kernel_size, dilation, is_causal, is_heads_last, return_macs):
    kernel, dilations, _, causal, _ = _options(operation, len(shapes[0]) - 3, kernel_size, dilation, 1, is_causal,
                                               False)
    return getattr(_C.neighborhood, operation)(*map(_shape, shapes), kernel, dilations, causal,
                                               _flag(operation, "is_heads_last", is_heads_last),
                                               _flag(operation, "return_macs", return_macs))


def na_qk_flop_count(q_shape, k_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    return _count("na_qk_flop_count", (q_shape, k_shape), kernel_size, dilation, is_causal, is_heads_last,
                  return_macs)


def na_av_flop_count(a_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    return _count("na_av_flop_count", (a_shape, v_shape), kernel_size, dilation, is_causal, is_heads_last,
                  return_macs)


def fna_flop_count(q_shape, k_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    return _count("fna_flop_count", (q_shape, k_shape, v_shape), kernel_size, dilation, is_causal, is_heads_last,
                  return_macs)


def _of_axes(query, key, value, axes):
    """axes: of each six numbers, as the inner operators take them: length, kernel, dilation, stride, two flags."""
    return fna_flop_count(query, key, value, tuple(axes[1::6]), 1, False, is_heads_last=True)


@_register(_torch.ops.halcyon._neighborhood)
def _forward(query, key, value, bias, more_keys, more_values, axes, *_arguments, **_keywords):
    return _of_axes(query, key, value, axes)


@_register(_torch.ops.halcyon._neighborhood_backward)
def _backward(grad_out, grad_lse, query, key, value, bias, more_keys, more_values, out, lse, axes, *_arguments,
              **_keywords):
    return 2 * _of_axes(query, key, value, axes)


def _product(first, last, axes):
    """Of the unfused operators' products, which take the axes after the tensors; additional tokens do not count."""
    return 2 * _math.prod(first[:-1]) * _math.prod(axes[1::6]) * last[-1]


@_register(_torch.ops.halcyon._neighborhood_scores)
def _scores(x, y, bias, more, axes, *_arguments, **_keywords):
    return _product(x, y, axes)


@_register(_torch.ops.halcyon._neighborhood_sums)
def _sums(attn, y, more, axes, **_keywords):
    return _product(attn, y, axes)


@_register(_torch.ops.halcyon._neighborhood_key_sums)
def _key_sums(attn, x, axes, **_keywords):
    return _product(attn, x, axes)
