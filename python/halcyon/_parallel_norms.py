# SPDX-License-Identifier: Apache-2.0
"""Norms over many processes and the sums of gradients; see halcyon/parallel/norms.h and reduce_gradients.h."""

import torch

from . import _C
from ._parallel_agreed import collective

_parallel = _C.parallel


@collective
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, *, dim=-2, group=None):
    """torch.nn.functional.group_norm of the whole tensor, on this rank's part along dim."""
    return lambda: _parallel.group_norm(x, num_groups, weight, bias, eps, dim, group)


@collective
def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5, *, dim=-2, group=None):
    """torch.nn.functional.layer_norm of the whole tensor; normalized_shape, weight and bias are global."""
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    return lambda: _parallel.layer_norm(x, shape, weight, bias, eps, dim, group)


@collective
def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, *,
               group=None):
    """torch.nn.functional.batch_norm of all ranks' positions; updates the running statistics when training."""
    return lambda: _parallel.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps, group)


@collective
def reduce_gradients(params, group=None, *, op="sum", weight=1.0):
    """The gradients of parameters (an iterable or a Module) become their sum, or weighted mean, over the ranks."""
    if isinstance(params, torch.nn.Module):
        params = params.parameters()
    elif isinstance(params, torch.Tensor):
        params = [params]
    params = list(params)
    return lambda: _parallel.reduce_gradients(params, group, op, weight)
