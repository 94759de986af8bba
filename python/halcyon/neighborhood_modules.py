# SPDX-License-Identifier: Apache-2.0
"""Modules of neighborhood attention: plain torch around the operators, so that they compile without a break."""

import torch
import torch.nn.functional as F

from .neighborhood import _flag, _functions, _number, _options
from .switches import is_fused_na_enabled


@torch.compiler.assume_constant_result
def _fused_by_switch():
    """A compiled graph keeps what it was traced with."""
    return is_fused_na_enabled()


def _whole(operation, name, value, least):
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"[{operation}] expected {name} as an int of {least} or more, got {value!r}")
    return value


def _probability(operation, name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"[{operation}] expected {name} in 0..1, got {value!r}")
    return float(value)


class _NeighborhoodAttention(torch.nn.Module):
    """x [B,*,dim] -> [B,*,dim]. fused=None follows use_fused_na(); with a stride or a periodic axis it is fused.

    Dropping attention weights in training needs them in memory, so then they are, on either path.
    """

    def __init__(self, rank, dim, num_heads, kernel_size, dilation, is_causal, rel_pos_bias, qkv_bias, qk_scale,
                 attn_drop, proj_drop, stride, periodic, fused, embed_dim):
        super().__init__()
        name = self._name = f"NeighborhoodAttention{rank}D"
        if (dim is None) == (embed_dim is None):
            raise ValueError(f"[{name}] expected one of dim and embed_dim, got {dim!r} and {embed_dim!r}")
        self.rank, self.dim = rank, _whole(name, "dim", embed_dim if dim is None else dim, 1)
        self.num_heads = _whole(name, "num_heads", num_heads, 1)
        if self.dim % self.num_heads:
            raise ValueError(f"[{name}] expected a dim that num_heads divides, got {self.dim} and {num_heads}")
        self.head_dim = self.dim // self.num_heads
        given = _options(name, rank, kernel_size, dilation, stride, is_causal, periodic)
        self._window = [values * rank if len(values) == 1 else values for values in given]
        kernels, dilations, strides, causal, periods = self._window
        for k, d, s, c, p in zip(*self._window):
            if k < 1 or d < 1 or not 1 <= s <= k:
                raise ValueError(f"[{name}] expected kernel_size and dilation of 1 or more and a stride in "
                                 f"1..kernel_size, got {k}, {d} and {s}")
            if p and (c or s != 1):
                raise NotImplementedError(f"[{name}] expected a periodic axis without causality and stride, got both")
        if _flag(name, "rel_pos_bias", rel_pos_bias) and any(causal):
            raise NotImplementedError(f"[{name}] expected no rel_pos_bias with a causal axis, got both")
        if fused is not None:
            _flag(name, "fused", fused)
        self.fused = True if any(periods) or any(s != 1 for s in strides) else fused
        scale = _number(name, "qk_scale", qk_scale)
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.attn_drop = _probability(name, "attn_drop", attn_drop)
        self.proj_drop = torch.nn.Dropout(_probability(name, "proj_drop", proj_drop))
        self.qkv = torch.nn.Linear(self.dim, 3 * self.dim, bias=_flag(name, "qkv_bias", qkv_bias))
        self.proj = torch.nn.Linear(self.dim, self.dim)
        if rel_pos_bias:
            self.rpb = torch.nn.Parameter(torch.empty(self.num_heads, *(2 * k - 1 for k in kernels)))
            torch.nn.init.trunc_normal_(self.rpb, std=0.02, a=-2.0, b=2.0)
        else:
            self.register_parameter("rpb", None)

    def extra_repr(self):
        names = ("kernel_size", "dilation", "stride", "is_causal", "periodic")
        window = ", ".join(f"{name}={tuple(values)}" for name, values in zip(names, self._window))
        return f"head_dim={self.head_dim}, num_heads={self.num_heads}, {window}, has_bias={self.rpb is not None}"

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"[{self._name}] expected a tensor, got {type(x).__name__}")
        if x.dim() != self.rank + 2 or x.shape[-1] != self.dim or not x.is_floating_point():
            raise ValueError(f"[{self._name}] expected x of rank {self.rank + 2} with {self.dim} channels in a "
                             f"floating type, got {tuple(x.shape)} {x.dtype}")
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.unbind(-3)
        rpb = None if self.rpb is None else self.rpb.to(q.dtype)
        dropped = self.training and self.attn_drop > 0
        fused = _fused_by_switch() if self.fused is None else self.fused
        functions = _functions()
        if fused and not dropped:
            attend = getattr(functions, f"na{self.rank}d")
            y = attend(q, k, v, *self._window, rpb, self.scale, None, None, "")[0]
        else:
            q, k, v = (t.movedim(-2, 1) for t in (q * self.scale, k, v))
            attn = functions.qk(self.rank, q, k, *self._window, None, rpb).softmax(-1)
            attn = F.dropout(attn, self.attn_drop, self.training)
            y = functions.av(self.rank, attn, v, *self._window, None).movedim(1, -2)
        return self.proj_drop(self.proj(y.flatten(-2)))


def _module(rank):
    class Attention(_NeighborhoodAttention):
        def __init__(self, dim=None, num_heads=1, kernel_size=3, dilation=1, is_causal=False, rel_pos_bias=False,
                     qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0, stride=1, periodic=False, fused=None,
                     embed_dim=None):
            super().__init__(rank, dim, num_heads, kernel_size, dilation, is_causal, rel_pos_bias, qkv_bias, qk_scale,
                             attn_drop, proj_drop, stride, periodic, fused, embed_dim)

    Attention.__name__ = Attention.__qualname__ = f"NeighborhoodAttention{rank}D"
    Attention.__doc__ = _NeighborhoodAttention.__doc__
    return Attention


NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D = (_module(rank) for rank in (1, 2, 3))
