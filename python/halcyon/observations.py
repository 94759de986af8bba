# SPDX-License-Identifier: Apache-2.0
"""Observations packed by pixel, and the operators on them."""

import dataclasses

import torch
from torch.utils import _pytree

from . import _C


def _functions():
    """A graph is made of registered operators; the bound functions raise a TypeError for a wrong type."""
    return torch.ops.halcyon if torch.compiler.is_compiling() else _C


def _target(device, dtype):
    """.to(device=None, dtype=None): a dtype alone may stand first."""
    if isinstance(device, torch.dtype):
        if dtype is not None:
            raise ValueError("[to] expected one dtype, got two")
        device, dtype = None, device
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"[to] expected a floating dtype, got {dtype}")
    return device, dtype


def _moved(x, device, dtype, non_blocking):
    if x is None:
        return None
    dtype = dtype if x.is_floating_point() else None
    return x.to(device=device, dtype=dtype, non_blocking=non_blocking, copy=True)


@dataclasses.dataclass(eq=False)
class PixelGroupMap:
    """Which pixels each program works on: int32 offsets (n_programs + 1,) into the pixels (n_nonempty,)."""

    program_ptr: torch.Tensor
    program_pixels: torch.Tensor

    def to(self, device=None, dtype=None, non_blocking=True):
        """A moved copy; floating tensors only are cast."""
        to = (*_target(device, dtype), non_blocking)
        return PixelGroupMap(_moved(self.program_ptr, *to), _moved(self.program_pixels, *to))


@dataclasses.dataclass(eq=False)
class ObsContext:
    """The observations of one model call, sorted by pixel."""

    obs: torch.Tensor
    float_metadata: torch.Tensor
    obs_type: torch.Tensor
    channel: torch.Tensor
    platform: torch.Tensor
    cu_seqlens_k: torch.Tensor
    max_seqlen_k: int
    group_map: PixelGroupMap | None = None

    def __post_init__(self):
        offsets = self.cu_seqlens_k
        if isinstance(offsets, torch.Tensor) and offsets.dim() != 1:
            raise ValueError(f"[ObsContext] expected cu_seqlens_k of rank 1, got {tuple(offsets.shape)}")

    def to(self, device=None, dtype=None, non_blocking=True):
        """A moved copy; floating tensors only are cast."""
        to = (*_target(device, dtype), non_blocking)
        tensors = (_moved(getattr(self, name), *to) for name in _TENSORS)
        map_ = None if self.group_map is None else self.group_map.to(*to)
        return ObsContext(*tensors, self.max_seqlen_k, map_)


_TENSORS = [field.name for field in dataclasses.fields(ObsContext)][:6]


def _register(kind):
    """Graphs take one as an argument: its fields are the leaves."""
    names = [field.name for field in dataclasses.fields(kind)]
    _pytree.register_pytree_node(
        kind, lambda one: ([getattr(one, name) for name in names], None), lambda values, _: kind(*values),
        serialized_type_name=f"halcyon.{kind.__name__}",
        flatten_with_keys_fn=lambda one: ([(_pytree.GetAttrKey(n), getattr(one, n)) for n in names], None))


_register(PixelGroupMap)
_register(ObsContext)


def group_map_tensors(group_map):
    """As the operators take it."""
    if group_map is None:
        return None, None
    if not isinstance(group_map, PixelGroupMap):
        raise TypeError(f"[pixel_attention] expected group_map as a PixelGroupMap, got {type(group_map).__name__}")
    return group_map.program_ptr, group_map.program_pixels


def build_pixel_group_map(cu_seqlens_k, thresh_mult=2.0):
    """Pairs of pixels with few observations, and the pixels far above the median alone."""
    return PixelGroupMap(*_C.build_pixel_group_map(cu_seqlens_k, thresh_mult))


def prepare_obs_context(obs, float_metadata, obs_type, channel, platform, flat_idx, total_pixels, *, build_group_map=True,
                        group_thresh_mult=2.0):
    """Sorts observations (N,) with metadata (N, M) by their flat index in [0, total_pixels): an ObsContext."""
    *fields, map_ = _C.prepare_obs_context(obs, float_metadata, obs_type, channel, platform, flat_idx, total_pixels,
                                           build_group_map, group_thresh_mult)
    return ObsContext(*fields, None if map_ is None else PixelGroupMap(*map_))


def pixel_attention(Q, tokens, W_k, W_v, cu_seqlens_k, max_seqlen_k, n_kv_heads=1, scale=None, B_k=None, B_v=None,
                    force_fp32=False, group_map=None):
    """Ragged grouped-query attention of each pixel over its own tokens: Q (P, n_q_heads, d_head) -> the same.

    Pixel p owns tokens[cu_seqlens_k[p]:cu_seqlens_k[p + 1]]. B_k cancels in the softmax; max_seqlen_k, force_fp32 and
    group_map change no number on a CPU."""
    return _functions().pixel_attention(Q, tokens, W_k, W_v, cu_seqlens_k, max_seqlen_k, n_kv_heads, scale, B_k, B_v,
                                        force_fp32, *group_map_tensors(group_map))
