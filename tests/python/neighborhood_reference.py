# SPDX-License-Identifier: Apache-2.0
"""Neighborhood attention in plain torch, in any floating dtype: a table of keys per query, a gather, a softmax."""

import functools
import math

import torch


def per_axis(value, axes):
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


def axis_window(length, kernel, dilation=1, stride=1, causal=False, periodic=False):
    """For each query of one axis the list of its keys as (group steps from query to key, key)."""
    windows = []
    for i in range(length):
        residue, g = i % dilation, i // dilation
        size = -((residue - length) // dilation)   # tokens of this residue
        last = None
        if periodic:
            first = g - kernel // 2
        elif causal:
            lead = min(g // stride * stride + stride - 1, size - 1)
            first, last = max(lead - kernel + 1, 0), g
        else:
            lead = min(g // stride * stride + stride // 2, size - 1)
            first = min(max(lead - kernel // 2, 0), size - kernel)
        positions = range(first, first + kernel if last is None else min(first + kernel, last + 1))
        windows.append([(p - g, residue + p % size * dilation) for p in positions])
    return windows


@functools.lru_cache(maxsize=None)
def tables(lengths, kernels, dilations, strides, causal, periodic):
    """Over the product of the axes, (T, W) each: flat key, whether the slot is filled, flat index into the bias."""
    key, filled, bias = torch.zeros(1, 1).long(), torch.ones(1, 1).bool(), torch.zeros(1, 1).long()
    for length, kernel, *rest in zip(lengths, kernels, dilations, strides, causal, periodic):
        windows = axis_window(length, kernel, *rest)
        own_key, own_step = torch.zeros(length, kernel).long(), torch.zeros(length, kernel).long()
        own_filled = torch.zeros(length, kernel).bool()
        for i, window in enumerate(windows):
            for slot, (step, j) in enumerate(window):
                own_key[i, slot], own_step[i, slot], own_filled[i, slot] = j, step + kernel - 1, True

        def product(outer, inner, combine):
            return combine(outer[:, None, :, None], inner[None, :, None, :]).flatten(2).flatten(0, 1)
        key = product(key, own_key, lambda a, b, n=length: a * n + b)
        bias = product(bias, own_step, lambda a, b, n=2 * kernel - 1: a * n + b)
        filled = product(filled, own_filled, torch.logical_and)
    return key * filled, filled, bias * filled


def window_tables(lengths, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False):
    options = (per_axis(value, len(lengths)) for value in (kernel_size, dilation, stride, is_causal, periodic))
    return tables(tuple(lengths), *options)


def gathered(tokens, index):
    """tokens (B, T, ...) at index (T, W): (B, T, W, ...)."""
    return tokens.index_select(1, index.flatten()).unflatten(1, index.shape)


def grouped(query, groups):
    """(B, T, H, d) as (B, T, G, H / G, d)."""
    return query.unflatten(2, (groups, query.shape[2] // groups))


def neighborhood_attention(query, key, value, kernel_size, dilation=1, stride=1, is_causal=False, periodic=False,
                           rpb=None, scale=None, additional_keys=None, additional_values=None):
    """The fused operator, heads last: (out, lse)."""
    lengths, groups = query.shape[1:-2], key.shape[-2]
    index, filled, bias = window_tables(lengths, kernel_size, dilation, stride, is_causal, periodic)
    q, k, v = (t.flatten(1, -3) for t in (query, key, value))
    q, scale = grouped(q, groups), query.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * torch.einsum("btgrd,btwgd->btgrw", q, gathered(k, index))
    if rpb is not None:
        scores = scores + rpb.flatten(1)[:, bias].unflatten(0, q.shape[2:4]).permute(2, 0, 1, 3)
    scores = scores.masked_fill(~filled[:, None, None], -math.inf)
    if additional_keys is not None:
        scores = torch.cat([scores, scale * torch.einsum("btgrd,bngd->btgrn", q, additional_keys)], -1)
    weights, slots = scores.softmax(-1), index.shape[1]
    out = torch.einsum("btgrw,btwge->btgre", weights[..., :slots], gathered(v, index))
    if additional_values is not None:
        out = out + torch.einsum("btgrn,bnge->btgre", weights[..., slots:], additional_values)
    return (out.flatten(2, 3).unflatten(1, lengths), scores.logsumexp(-1).flatten(2).unflatten(1, lengths))


def qk(query, key, kernel_size, dilation=1, is_causal=False, additional_keys=None, rpb=None):
    """Heads first, no scale; empty slots hold -inf."""
    lengths = query.shape[2:-1]
    index, filled, bias = window_tables(lengths, kernel_size, dilation, is_causal=is_causal)
    q, k = (t.flatten(2, -2).transpose(1, 2) for t in (query, key))
    attn = torch.einsum("bthd,btwhd->bhtw", q, gathered(k, index))
    if rpb is not None:
        attn = attn + rpb.flatten(1)[:, bias]
    attn = attn.masked_fill(~filled, -math.inf)
    if additional_keys is not None:
        attn = torch.cat([attn, torch.einsum("bthd,bhnd->bhtn", q, additional_keys)], -1)
    return attn.unflatten(2, lengths)


def av(attn, value, kernel_size, dilation=1, is_causal=False, additional_values=None):
    """Heads first; what stands in an empty slot is not looked at."""
    lengths = value.shape[2:-1]
    index, filled, _ = window_tables(lengths, kernel_size, dilation, is_causal=is_causal)
    attn, v, slots = attn.flatten(2, -2), value.flatten(2, -2).transpose(1, 2), index.shape[1]
    near = torch.where(filled, attn[..., :slots], torch.zeros((), dtype=attn.dtype))
    out = torch.einsum("bhtw,btwhe->bhte", near, gathered(v, index))
    if additional_values is not None:
        out = out + torch.einsum("bhtn,bhne->bhte", attn[..., slots:], additional_values)
    return out.unflatten(2, lengths)


def masked_attention(query, key, value, visible=None, scale=None):
    """Dense attention, heads last, with visible (Tq, Tk): (out, lse); a query without keys gives 0 and -inf."""
    q, scale = grouped(query, key.shape[2]), query.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * torch.einsum("btgrd,bsgd->btgrs", q, key)
    visible = torch.ones(scores.shape[1], scores.shape[-1]).bool() if visible is None else visible
    some = visible.any(1)[:, None, None, None]
    open_scores = scores.masked_fill(~visible[:, None, None] & some, -math.inf)
    weights = torch.where(some, open_scores.softmax(-1), torch.zeros((), dtype=scores.dtype))
    out = torch.einsum("btgrs,bsge->btgre", weights, value)
    lse = open_scores.logsumexp(-1).masked_fill(~some[..., 0], -math.inf)
    return out.flatten(2, 3), lse.flatten(2)


def module(x, state, heads, kernel_size, scale=None, **options):
    """NeighborhoodAttention without dropout, from its state."""
    q, k, v = torch.nn.functional.linear(x, state["qkv.weight"], state.get("qkv.bias")).unflatten(
        -1, (3, heads, x.shape[-1] // heads)).unbind(-3)
    out, _ = neighborhood_attention(q, k, v, kernel_size, rpb=state.get("rpb"), scale=scale, **options)
    return torch.nn.functional.linear(out.flatten(-2), state["proj.weight"], state["proj.bias"])
