# SPDX-License-Identifier: Apache-2.0
"""Modules of neighborhood attention: plain torch around the operators, so that they compile without a break."""

import torch
import torch.nn.functional as F

from . import _C
from .neighborhood import _flag, _functions, _number, _options, _window
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


def _width(name, dim, embed_dim, num_heads):
    if (dim is None) == (embed_dim is None):
        raise ValueError(f"[{name}] expected one of dim and embed_dim, got {dim!r} and {embed_dim!r}")
    dim = _whole(name, "dim", embed_dim if dim is None else dim, 1)
    if dim % _whole(name, "num_heads", num_heads, 1):
        raise ValueError(f"[{name}] expected a dim that num_heads divides, got {dim} and {num_heads}")
    return dim


class _Projected(torch.nn.Module):
    """Queries, keys and values from one projection, and one of the result: what the modules have in common."""

    def _project(self, name, dim, embed_dim, num_heads, qkv_bias, qk_scale, attn_drop, proj_drop):
        self._name, self.dim, self.num_heads = name, _width(name, dim, embed_dim, num_heads), num_heads
        self.head_dim = self.dim // num_heads
        scale = _number(name, "qk_scale", qk_scale)
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.attn_drop = _probability(name, "attn_drop", attn_drop)
        self.proj_drop = torch.nn.Dropout(_probability(name, "proj_drop", proj_drop))
        self.qkv = torch.nn.Linear(self.dim, 3 * self.dim, bias=_flag(name, "qkv_bias", qkv_bias))
        self.proj = torch.nn.Linear(self.dim, self.dim)

    def _split(self, x, rank):
        """[B,*,dim] -> three of [B,*,heads,width]."""
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"[{self._name}] expected a tensor, got {type(x).__name__}")
        if x.dim() != rank + 2 or x.shape[-1] != self.dim or not x.is_floating_point():
            raise ValueError(f"[{self._name}] expected x of rank {rank + 2} with {self.dim} channels in a floating "
                             f"type, got {tuple(x.shape)} {x.dtype}")
        return self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)

    def _drops_weights(self):
        return self.training and self.attn_drop > 0


class _NeighborhoodAttention(_Projected):
    """x [B,*,dim] -> [B,*,dim]. fused=None follows use_fused_na(); with a stride or a periodic axis it is fused.

    Dropping attention weights in training needs them in memory, so then they are, on either path.
    """

    def __init__(self, rank, dim, num_heads, kernel_size, dilation, is_causal, rel_pos_bias, qkv_bias, qk_scale,
                 attn_drop, proj_drop, stride, periodic, fused, embed_dim):
        super().__init__()
        name = f"NeighborhoodAttention{rank}D"
        self.rank = rank
        self._project(name, dim, embed_dim, num_heads, qkv_bias, qk_scale, attn_drop, proj_drop)
        given = _options(name, rank, kernel_size, dilation, stride, is_causal, periodic)
        self._window = [values * rank if len(values) == 1 else values for values in given]
        kernels, _, strides, _, periods = self._window
        _C.neighborhood.check_neighborhood_module(name, rank, *self._window,
                                                  _flag(name, "rel_pos_bias", rel_pos_bias))
        if fused is not None:
            _flag(name, "fused", fused)
        self.fused = True if any(periods) or any(s != 1 for s in strides) else fused
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
        q, k, v = self._split(x, self.rank)
        rpb = None if self.rpb is None else self.rpb.to(q.dtype)
        fused = _fused_by_switch() if self.fused is None else self.fused
        functions = _functions()
        if fused and not self._drops_weights():
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


class NeighborhoodAttentionHEALPix(_Projected):
    """x [B,X,dim] -> the same: each pixel of the sphere, or of a region, attends to the pixels around it.

    Dropping attention weights in training needs all X * X of them in memory.
    """

    def __init__(self, dim=None, num_heads=1, level=6, radius_deg=None, rings=None, order="nest", region=None,
                 qkv_bias=True, qk_scale=None, attn_drop=0.0, proj_drop=0.0, embed_dim=None):
        super().__init__()
        name = "NeighborhoodAttentionHEALPix"
        self._project(name, dim, embed_dim, num_heads, qkv_bias, qk_scale, attn_drop, proj_drop)
        *self._window, region = _window(name, level, radius_deg, rings, order, region)
        _C.neighborhood.check_healpix_window(name, *self._window, region)
        self.register_buffer("region", region, persistent=False)

    def extra_repr(self):
        level, radius_deg, rings, order = self._window
        reach = f"radius_deg={radius_deg}" if rings is None else f"rings={rings}"
        return f"head_dim={self.head_dim}, num_heads={self.num_heads}, level={level}, {reach}, order={order}"

    def forward(self, x):
        q, k, v = self._split(x, 1)
        if self._drops_weights():
            seen = _C.neighborhood.healpix_seen(*self._window, self.region).to(x.device)
            q, k, v = (t.transpose(1, 2) for t in (q * self.scale, k, v))
            # 0 times NaN is NaN: what is not finite is taken out, and whoever sees it gets NaN
            finite = [t.detach().isfinite() for t in (q, k, v)]
            lost = ~(finite[1].all(-1, True) & finite[2].all(-1, True))
            spoiled = (seen.float() @ lost.float() > 0) | ~finite[0].all(-1, True)
            q, k, v = (t.masked_fill(~whole, 0) for t, whole in zip((q, k, v), finite))
            attn = (q @ k.mT).masked_fill(~seen, float("-inf")).softmax(-1)
            y = (F.dropout(attn, self.attn_drop) @ v).masked_fill(spoiled, float("nan")).transpose(1, 2)
        else:
            y = _functions().neighborhood_attention_healpix(q, k, v, *self._window, self.region, self.scale)
        return self.proj_drop(self.proj(y.flatten(2)))
