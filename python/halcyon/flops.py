# SPDX-License-Identifier: Apache-2.0
"""Operations of neighborhood attention: 2 a multiplication and addition of Q K^T and of A V, whatever is masked."""

import math as _math

import torch as _torch
from torch.utils.flop_counter import register_flop_formula as _register

from .neighborhood import _flag, _options


def _pairs(operation, shape, kernel_size, dilation, is_causal, is_heads_last):
    """Batch * heads * tokens * window, and the rank, of a tensor [B,*,H,c] or [B,H,*,c]."""
    shape = [int(size) for size in shape]
    rank = len(shape) - 3
    if not 1 <= rank <= 3:
        raise ValueError(f"[{operation}] expected shapes of rank 4 to 6, got {shape}")
    kernel = _options(operation, rank, kernel_size, dilation, 1, is_causal, False)[0]
    _flag(operation, "is_heads_last", is_heads_last)
    if min(kernel) < 1:
        raise ValueError(f"[{operation}] expected a kernel_size of 1 or more, got {kernel_size!r}")
    return _math.prod(shape[:-1]) * _math.prod(kernel * rank if len(kernel) == 1 else kernel)


def na_qk_flop_count(q_shape, k_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    pairs = _pairs("na_qk_flop_count", q_shape, kernel_size, dilation, is_causal, is_heads_last)
    if len(k_shape) != len(q_shape) or k_shape[-1] != q_shape[-1]:
        raise ValueError(f"[na_qk_flop_count] expected key like query, {list(q_shape)}, got {list(k_shape)}")
    return pairs * q_shape[-1] * (1 if _flag("na_qk_flop_count", "return_macs", return_macs) else 2)


def na_av_flop_count(a_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    pairs = _pairs("na_av_flop_count", a_shape, kernel_size, dilation, is_causal, is_heads_last)
    if len(v_shape) != len(a_shape):
        raise ValueError(f"[na_av_flop_count] expected value of rank {len(a_shape)}, got {list(v_shape)}")
    return pairs * v_shape[-1] * (1 if _flag("na_av_flop_count", "return_macs", return_macs) else 2)


def fna_flop_count(q_shape, k_shape, v_shape, kernel_size, dilation, is_causal, is_heads_last, return_macs=False):
    name = "fna_flop_count"
    pairs = _pairs(name, q_shape, kernel_size, dilation, is_causal, is_heads_last)
    if not len(k_shape) == len(v_shape) == len(q_shape) or k_shape[-1] != q_shape[-1]:
        raise ValueError(f"[{name}] expected key and value like query, {list(q_shape)}, got {list(k_shape)} and "
                         f"{list(v_shape)}")
    return pairs * (q_shape[-1] + v_shape[-1]) * (1 if _flag(name, "return_macs", return_macs) else 2)


def _window(axes):
    """Of the six numbers an axis that the inner operators take: length, kernel, dilation, stride, two flags."""
    return _math.prod(axes[1::6])


@_register(_torch.ops.halcyon._neighborhood)
def _forward(query, key, value, bias, more_keys, more_values, axes, *_arguments, **_keywords):
    return 2 * _math.prod(query[:-1]) * _window(axes) * (query[-1] + value[-1])


@_register(_torch.ops.halcyon._neighborhood_backward)
def _backward(grad_out, grad_lse, query, key, value, bias, more_keys, more_values, out, lse, axes, *_arguments,
              **_keywords):
    return 4 * _math.prod(query[:-1]) * _window(axes) * (query[-1] + value[-1])


def _product(first, last, axes):
    """Of the unfused operators' products, which take the axes after the tensors; additional tokens do not count."""
    return 2 * _math.prod(first[:-1]) * _window(axes) * last[-1]


@_register(_torch.ops.halcyon._neighborhood_scores)
def _scores(x, y, bias, more, axes, *_arguments, **_keywords):
    return _product(x, y, axes)


@_register(_torch.ops.halcyon._neighborhood_sums)
def _sums(attn, y, more, axes, **_keywords):
    return _product(attn, y, axes)


@_register(_torch.ops.halcyon._neighborhood_key_sums)
def _key_sums(attn, x, axes, **_keywords):
    return _product(attn, x, axes)
