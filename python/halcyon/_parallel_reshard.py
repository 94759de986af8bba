# SPDX-License-Identifier: Apache-2.0
"""Between a whole tensor and its parts, and between one cut and another (halcyon/parallel/reshard.h)."""

from . import _C
from ._parallel_agreed import collective

_parallel = _C.parallel


@collective
def shard(x, dim=-2, group=None):
    """This rank's part of x, whole on every rank; the backward gathers the parts."""
    return lambda: _parallel.shard(x, dim, group)


@collective
def gather(x, dim=-2, group=None, *, sum_grad=False):
    """The whole of the parts, on every rank. The backward takes this rank's part of the cotangent; with sum_grad, of the
    sum of all ranks' cotangents."""
    return lambda: _parallel.gather(x, dim, group, sum_grad)


@collective
def shard_x(x, group=None):
    """(b, t_local, X, c) -> (b, T, x_local, c): frames become whole, pixels are cut."""
    return lambda: _parallel.shard_x(x, group)


@collective
def shard_t(x, group=None):
    """(b, T, x_local, c) -> (b, t_local, X, c): pixels become whole, frames are cut."""
    return lambda: _parallel.shard_t(x, group)
