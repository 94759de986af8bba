# SPDX-License-Identifier: Apache-2.0
"""Entries by their numbers, and attention over many processes. What each computes is written at its C++ function
(halcyon/parallel/{gather_index,healpix_pad,neighborhood,attention}.h)."""

from . import _C
from ._parallel_agreed import collective
from .neighborhood import _check_backend, _flag, _number, _options, _window

_parallel = _C.parallel


@collective
def gather_index(x, index, dim=0, group=None):
    """Entries of the global axis dim by their numbers; -1 gives zeros."""
    return lambda: _parallel.gather_index(x, index, dim, group)


@collective
def healpix_pad(x, padding, group=None):
    """x (faces, C, n, n) or (B, faces, C, n, n) with the pixels around each face."""
    return lambda: _parallel.healpix_pad(x, padding, group)


def _attend(operation, rank, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
            additional_keys, additional_values, return_lse, backend, shard_dim, group):
    _check_backend(operation, backend)
    return_lse = _flag(operation, "return_lse", return_lse)
    options = _options(operation, rank, kernel_size, dilation, stride, is_causal, periodic)
    scale = _number(operation, "scale", scale)

    def call():
        out, lse = getattr(_parallel, operation)(query, key, value, *options, rpb, scale, additional_keys,
                                                 additional_values, backend or "", shard_dim, group)
        return (out, lse) if return_lse else out

    return call


@collective
def na1d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None, *, shard_dim=1, group=None):
    """halcyon.na1d of this rank's tokens, [B,L,H,d] cut along L."""
    return _attend("na1d", 1, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend, shard_dim, group)


@collective
def na2d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None, *, shard_dim=1, group=None):
    """halcyon.na2d of this rank's tokens, [B,L0,L1,H,d] cut along the axis shard_dim."""
    return _attend("na2d", 2, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend, shard_dim, group)


@collective
def na3d(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False, rpb=None, scale=None,
         additional_keys=None, additional_values=None, return_lse=False, backend=None, *, shard_dim=1, group=None):
    """halcyon.na3d of this rank's tokens, [B,L0,L1,L2,H,d] cut along the axis shard_dim."""
    return _attend("na3d", 3, query, key, value, kernel_size, dilation, stride, is_causal, periodic, rpb, scale,
                   additional_keys, additional_values, return_lse, backend, shard_dim, group)


@collective
def neighborhood_attention_healpix(q, k, v, level, radius_deg=None, rings=None, order="nest", scale=None, *,
                                   group=None):
    """halcyon.neighborhood_attention_healpix of this rank's pixels, [B,X_local,H,d]."""
    name = "neighborhood_attention_healpix"
    window, scale = _window(name, level, radius_deg, rings, order, None), _number(name, "scale", scale)
    return lambda: _parallel.neighborhood_attention_healpix(q, k, v, *window, scale, group)


@collective
def scaled_dot_product_attention(query, key, value, is_causal=False, scale=None, *, dim=-2, group=None):
    """Attention of (B, heads, S, d), S cut over the ranks; as many or fewer heads of key and value as of query."""
    name = "scaled_dot_product_attention"
    is_causal, scale = _flag(name, "is_causal", is_causal), _number(name, "scale", scale)
    return lambda: _parallel.scaled_dot_product_attention(query, key, value, is_causal, scale, dim, group)
