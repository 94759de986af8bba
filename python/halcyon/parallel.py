# SPDX-License-Identifier: Apache-2.0
"""One tensor over many processes. What each function computes is written at its C++ function (halcyon/parallel).

group is a torch.distributed.ProcessGroup; None is the default group, or this process alone."""

import operator as _operator

import torch as _torch

from . import _C
from ._parallel_agreed import collective as _collective
from ._parallel_data import DataParallel  # noqa: F401
from ._parallel_norms import batch_norm, group_norm, layer_norm, reduce_gradients  # noqa: F401
from ._parallel_reshard import gather, shard, shard_t, shard_x  # noqa: F401
from ._parallel_attention import (gather_index, healpix_pad, na1d, na2d, na3d,  # noqa: F401
                                  neighborhood_attention_healpix, scaled_dot_product_attention)
from ._parallel_convert import ConvertReport, convert  # noqa: F401
from ._parallel_operators import conv, conv_transpose, interpolate, pool  # noqa: F401

_parallel = _C.parallel


def split_sizes(n, group=None):
    """How an axis of n is cut over the ranks where a function chooses: as torch.tensor_split."""
    return _parallel.split_sizes(n, group)


def traffic():
    """(messages, bytes) that this process has sent to others in this module's functions since it began."""
    return _parallel.traffic()


def _is_int(value):
    return hasattr(value, "__index__") and not isinstance(value, (bool, _torch.Tensor))


def _halo_width(operation, value):
    values = (value, value) if _is_int(value) else value
    if not isinstance(values, (tuple, list)) or len(values) != 2 or not all(map(_is_int, values)):
        raise ValueError(f"[{operation}] expected halo_width as an int or two, (before, after), got {value!r}")
    return tuple(map(_operator.index, values))


@_collective
def gather_rows(x, lo, hi, dim=-2, group=None, edge="zero", *, fold_dim=-1, fold_group=None, fold_sign=1.0):
    """Rows [lo, hi) of the global axis dim, this rank's own choice."""
    return lambda: _parallel.gather_rows(x, lo, hi, dim, group, edge, fold_dim, fold_group, fold_sign)


@_collective
def halo_exchange(x, halo_width, dim=-2, group=None, edge="zero", *, fold_dim=-1, fold_group=None, fold_sign=1.0):
    """This rank's rows of the axis dim with those before and after them."""
    width = _halo_width("halo_exchange", halo_width)
    return lambda: _parallel.halo_exchange(x, width, dim, group, edge, fold_dim, fold_group, fold_sign)


class _Groups:
    """The groups of a module. A copy speaks of the same; they cannot be written to a file, so what is read back means
    the default group."""

    def __init__(self, group=None, fold_group=None):
        self.group, self.fold_group = group, fold_group

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return _Groups, ()


class HaloExchange(_torch.nn.Module):
    """halo_exchange with its options."""

    def __init__(self, halo_width, dim=-2, edge="zero", group=None, *, fold_dim=-1, fold_group=None, fold_sign=1.0):
        super().__init__()
        _halo_width("HaloExchange", halo_width)
        self.halo_width, self.dim, self.edge = halo_width, dim, edge
        self.fold_dim, self.fold_sign, self._groups = fold_dim, fold_sign, _Groups(group, fold_group)

    def forward(self, x):
        return halo_exchange(x, self.halo_width, self.dim, self.group, self.edge, fold_dim=self.fold_dim,
                             fold_group=self.fold_group, fold_sign=self.fold_sign)

    @property
    def group(self):
        return self._groups.group

    @property
    def fold_group(self):
        return self._groups.fold_group

    @staticmethod
    def trim(x, halo_before, halo_after, dim=-2):
        """x without its first halo_before and last halo_after rows; no communication."""
        return _parallel.trim(x, halo_before, halo_after, dim)

    def extra_repr(self):
        return f"halo_width={self.halo_width}, dim={self.dim}, edge={self.edge!r}"
