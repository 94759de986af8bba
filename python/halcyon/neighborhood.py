# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention: heads-last fused operators. What each computes is written at its C++ function
(halcyon/ops/neighborhood/neighborhood.h)."""

import torch as _torch

from . import _C


def _functions():
    """A graph is made of registered operators; the bound functions raise errors of the right type."""
    return _torch.ops.halcyon if _torch.compiler.is_compiling() else _C.neighborhood


def _per_axis(operation, name, value, rank, default, kind):
    """A list with one value for all axes or one an axis; None is the default. bool is no int, nor int a bool."""
    if value is None:
        return [default]
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    named = "a bool" if kind is bool else "an int"
    for one in values:
        if not isinstance(one, kind) or (kind is int and isinstance(one, bool)):
            raise ValueError(f"[{operation}] expected {name} as {named} or a tuple of {rank}, got {value!r}")
    if len(values) not in (1, rank) or (isinstance(value, (tuple, list)) and len(values) != rank):
        raise ValueError(f"[{operation}] expected {name} as {named} or a tuple of {rank}, got {value!r}")
    return [int(one) for one in values]


def _number(operation, name, value):
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"[{operation}] expected {name} as a number, got {value!r}")
    return None if value is None else float(value)


def _options(operation, rank, kernel_size, dilation, stride, is_causal, periodic):
    if kernel_size is None:
        raise ValueError(f"[{operation}] expected a kernel_size, got None")
    return (_per_axis(operation, "kernel_size", kernel_size, rank, 1, int),
            _per_axis(operation, "dilation", dilation, rank, 1, int),
            _per_axis(operation, "stride", stride, rank, 1, int),
            _per_axis(operation, "is_causal", is_causal, rank, False, bool),
            _per_axis(operation, "periodic", periodic, rank, False, bool))


def _check_backend(operation, backend):
    if backend not in (None, "reference", "tiled", "gemm"):
        raise ValueError(f'[{operation}] expected backend None, "reference", "tiled" or "gemm", got {backend!r}')


def _attend(operation, rank, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
            additional_keys, additional_values, return_lse, backend):
    _check_backend(operation, backend)
    given = (query, key, value, *_options(operation, rank, kernel_size, dilation, stride, is_causal, periodic), rpb,
             _number(operation, "scale", scale), additional_keys, additional_values, backend or "")
    out, lse = getattr(_functions(), operation)(*given)
    return (out, lse) if _flag(operation, "return_lse", return_lse) else out


def na1d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None):
    """query [B,L,H,d], key [B,L,G,d], value [B,L,G,e] -> out [B,L,H,e], with return_lse also lse [B,L,H]."""
    return _attend("na1d", 1, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend)


def na2d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None):
    """query [B,L0,L1,H,d], key [B,L0,L1,G,d], value [B,L0,L1,G,e] -> out [B,L0,L1,H,e], lse [B,L0,L1,H]."""
    return _attend("na2d", 2, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend)


def na3d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None):
    """query [B,L0,L1,L2,H,d], key [.., G,d], value [.., G,e] -> out [B,L0,L1,L2,H,e], lse [B,L0,L1,L2,H]."""
    return _attend("na3d", 3, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend)


def _flag(operation, name, value):
    if not isinstance(value, bool):
        raise ValueError(f"[{operation}] expected {name} as a bool, got {value!r}")
    return value


def _lengths(operation, name, value):
    """A list of ints from a list, a tuple or an integer tensor of rank 1."""
    if value is None:
        return None
    if isinstance(value, _torch.Tensor):
        if value.dim() != 1 or value.is_floating_point() or value.is_complex() or value.dtype == _torch.bool:
            raise ValueError(f"[{operation}] expected {name} as integers of rank 1, got {value.dtype} {value.shape}")
        return value.tolist()
    if not isinstance(value, (list, tuple)) or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
        raise ValueError(f"[{operation}] expected {name} as integers, got {value!r}")
    return list(value)


def attention(query, key, value, is_causal=False, scale=None, seqlens_Q=None, seqlens_KV=None, return_lse=False,
              backend=None):
    """Plain attention: query [B,T,H,d], key [B,S,G,d], value [B,S,G,e] -> out [B,T,H,e], lse [B,T,H]."""
    _check_backend("attention", backend)
    out, lse = _functions().attention(query, key, value, _flag("attention", "is_causal", is_causal),
                                      _number("attention", "scale", scale),
                                      _lengths("attention", "seqlens_Q", seqlens_Q),
                                      _lengths("attention", "seqlens_KV", seqlens_KV),
                                      _flag("attention", "return_lse", return_lse))
    return (out, lse) if return_lse else out


def na1d_varlen(query, key, value, kernel_size, seqlens, dilation=1, stride=1, is_causal=False, periodic=False,
                rpb=None, scale=None, return_lse=False, backend=None):
    """na1d of each of the sequences that stand one after the other in [1, sum(seqlens), H, d]."""
    name = "na1d_varlen"
    _check_backend(name, backend)
    lengths = _lengths(name, "seqlens", seqlens)
    if lengths is None:
        raise ValueError(f"[{name}] expected seqlens, got None")
    result = _functions().na1d_varlen(query, key, value, lengths,
                                      *_options(name, 1, kernel_size, dilation, stride, is_causal, periodic), rpb,
                                      _number(name, "scale", scale), backend or "")
    return result if _flag(name, "return_lse", return_lse) else result[0]


def _qk(rank, query, key, kernel_size, dilation, is_causal, additional_keys, rpb):
    options = _options(f"na{rank}d_qk", rank, kernel_size, dilation, 1, is_causal, False)
    return _functions().qk(rank, query, key, *options, additional_keys, rpb)


def _av(rank, attn, value, kernel_size, dilation, is_causal, additional_values):
    options = _options(f"na{rank}d_av", rank, kernel_size, dilation, 1, is_causal, False)
    return _functions().av(rank, attn, value, *options, additional_values)


def na1d_qk(query, key, kernel_size, dilation=1, is_causal=False, additional_keys=None, rpb=None):
    """query, key [B,H,L,d] -> scores [B,H,L,W] or [B,H,L,W+N], not scaled."""
    return _qk(1, query, key, kernel_size, dilation, is_causal, additional_keys, rpb)


def na2d_qk(query, key, kernel_size, dilation=1, is_causal=False, additional_keys=None, rpb=None):
    """query, key [B,H,L0,L1,d] -> scores [B,H,L0,L1,W] or [.., W+N], not scaled."""
    return _qk(2, query, key, kernel_size, dilation, is_causal, additional_keys, rpb)


def na3d_qk(query, key, kernel_size, dilation=1, is_causal=False, additional_keys=None, rpb=None):
    """query, key [B,H,L0,L1,L2,d] -> scores [B,H,L0,L1,L2,W] or [.., W+N], not scaled."""
    return _qk(3, query, key, kernel_size, dilation, is_causal, additional_keys, rpb)


def na1d_av(attn, value, kernel_size, dilation=1, is_causal=False, additional_values=None):
    """attn [B,H,L,W] or [B,H,L,W+N], value [B,H,L,e] -> [B,H,L,e]."""
    return _av(1, attn, value, kernel_size, dilation, is_causal, additional_values)


def na2d_av(attn, value, kernel_size, dilation=1, is_causal=False, additional_values=None):
    """attn [B,H,L0,L1,W] or [.., W+N], value [B,H,L0,L1,e] -> [B,H,L0,L1,e]."""
    return _av(2, attn, value, kernel_size, dilation, is_causal, additional_values)


def na3d_av(attn, value, kernel_size, dilation=1, is_causal=False, additional_values=None):
    """attn [B,H,L0,L1,L2,W] or [.., W+N], value [B,H,L0,L1,L2,e] -> [B,H,L0,L1,L2,e]."""
    return _av(3, attn, value, kernel_size, dilation, is_causal, additional_values)


def _window(operation, level, radius_deg, rings, order, region):
    for name, value in (("level", level), ("rings", rings)):
        if isinstance(value, bool) or not isinstance(value, int) and not (name == "rings" and value is None):
            raise ValueError(f"[{operation}] expected {name} as an int, got {value!r}")
    if order not in ("nest", "pad_xy"):
        raise ValueError(f'[{operation}] expected the order "nest" or "pad_xy", got {order!r}')
    return level, _number(operation, "radius_deg", radius_deg), rings, order, region


def neighborhood_attention_healpix(q, k, v, level, radius_deg=None, rings=None, order="nest", region=None, scale=None):
    """q [B,X,H,d], k [B,X,G,d], v [B,X,G,e] -> [B,X,H,e]: each pixel attends to the pixels around it."""
    name = "neighborhood_attention_healpix"
    return _functions().neighborhood_attention_healpix(
        q, k, v, *_window(name, level, radius_deg, rings, order, region), _number(name, "scale", scale))


def neighborhood_attention_healpix_stats(level, radius_deg=None, rings=None, order="nest", region=None):
    """Pixels, (query, key) pairs, pairs that the blocks of 16 queries compute, and the share that is useful."""
    return _C.neighborhood.neighborhood_attention_healpix_stats(
        *_window("neighborhood_attention_healpix_stats", level, radius_deg, rings, order, region))


def merge_attentions(outputs, lses):
    """Outputs [B,*,H,e] and lses [B,*,H] of attention over disjoint keys -> (out, lse) over all of them."""
    return _functions().merge_attentions(list(outputs), list(lses))
