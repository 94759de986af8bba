# SPDX-License-Identifier: Apache-2.0
"""Operators on a sharded axis, as in torch.nn.functional: see halcyon/parallel/conv.h, pool.h, interpolate.h."""

import operator as _operator

from . import _C
from ._parallel_agreed import collective

_parallel = _C.parallel


def _numbers(operation, name, value, cast=_operator.index):
    """One number or several as a list."""
    try:
        return [cast(one) for one in value] if isinstance(value, (tuple, list)) else [cast(value)]
    except (TypeError, ValueError):
        raise ValueError(f"[{operation}] expected {name} as a number or one for each spatial axis, "
                         f"got {value!r}") from None


@collective
def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", *, dim=-2, group=None,
         edge=None):
    """This rank's rows of the convolution of the whole tensor; 1-D to 3-D by the weight."""
    if not isinstance(padding, str):
        padding = _numbers("conv", "padding", padding)
    stride, dilation = _numbers("conv", "stride", stride), _numbers("conv", "dilation", dilation)
    return lambda: _parallel.conv(x, weight, bias, stride, padding, dilation, groups, padding_mode, dim, group, edge)


@collective
def conv_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, dim=-2,
                   group=None):
    """This rank's rows of the transposed convolution of the whole tensor; 1-D to 3-D by the weight."""
    names = dict(stride=stride, padding=padding, output_padding=output_padding, dilation=dilation)
    numbers = {name: _numbers("conv_transpose", name, value) for name, value in names.items()}
    return lambda: _parallel.conv_transpose(x, weight, bias, groups=groups, dim=dim, group=group, **numbers)


@collective
def pool(x, kernel_size, stride=None, padding=0, dilation=1, mode="max", ceil_mode=False, count_include_pad=True, *,
         dim=-2, group=None):
    """This rank's rows of the max or avg pooling of the whole tensor; x has a batch axis unless kernel_size names the
    spatial axes."""
    kernel_size = _numbers("pool", "kernel_size", kernel_size)
    stride = None if stride is None else _numbers("pool", "stride", stride)
    padding, dilation = _numbers("pool", "padding", padding), _numbers("pool", "dilation", dilation)
    return lambda: _parallel.pool(x, kernel_size, stride, padding, dilation, mode, ceil_mode, count_include_pad, dim,
                                  group)


@collective
def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None, *, dim=-2, group=None):
    """This rank's rows of the whole tensor interpolated; size and scale_factor are the whole tensor's."""
    size = None if size is None else _numbers("interpolate", "size", size)
    scale_factor = None if scale_factor is None else _numbers("interpolate", "scale_factor", scale_factor, float)
    return lambda: _parallel.interpolate(x, size, scale_factor, mode, align_corners, dim, group)
