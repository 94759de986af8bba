# SPDX-License-Identifier: Apache-2.0
"""convert: a model of torch.nn on a sharded axis."""

import copy as _copy
import functools as _functools
from dataclasses import dataclass as _dataclass, field as _field

import torch as _torch
from torch import nn as _nn

from . import _C, _parallel_norms as _norms, _parallel_operators as _operators

__all__ = ["ConvertReport", "convert"]


@_dataclass
class ConvertReport:
    """What convert did: module names (the root is "") with the class that each became, or why it stayed."""
    converted: dict = _field(default_factory=dict)
    kept: dict = _field(default_factory=dict)


class _Sharding:
    """The group and axis of a converted module. A copy of the module speaks of the same group; a group cannot be
    written to a file, so what is read back means the default group."""

    def __init__(self, group, dim):
        self.group, self.dim = group, dim

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return _Sharding, (None, self.dim)

    def options(self):
        return dict(dim=self.dim, group=self.group)


def _dims(module, names="123"):
    """1, 2 or 3, from the names of torch.nn's classes."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch.nn") and kind.__name__[-2:] in [f"{n}d" for n in names]:
            return int(kind.__name__[-2])
    return None


class _Conv:
    def forward(self, x):
        return _operators.conv(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
                               self.padding_mode, **self.sharding.options())


class _ConvTranspose:
    def forward(self, x, output_size=None):
        if output_size is not None:
            raise ValueError("[convert] expected a transposed convolution without output_size on a sharded axis; "
                             "output_padding says the same")
        return _operators.conv_transpose(x, self.weight, self.bias, self.stride, self.padding, self.output_padding,
                                         self.groups, self.dilation, **self.sharding.options())


class _Pool:
    def forward(self, x):
        n = _dims(self)
        kernel = self.kernel_size if isinstance(self.kernel_size, (tuple, list)) else (self.kernel_size,) * n
        own = dict(mode="max", dilation=self.dilation) if hasattr(self, "return_indices") else \
            dict(mode="avg", count_include_pad=self.count_include_pad)
        return _operators.pool(x, kernel, self.stride, self.padding, ceil_mode=self.ceil_mode, **own,
                               **self.sharding.options())


class _Upsample:
    def forward(self, x):
        return _operators.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners,
                                      **self.sharding.options())


class _GroupNorm:
    def forward(self, x):
        return _norms.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, **self.sharding.options())


class _LayerNorm:
    def forward(self, x):
        return _norms.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps,
                                 **self.sharding.options())


class _BatchNorm:
    def forward(self, x):
        self._check_input_dim(x)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean of all batches
                momentum = 1.0 / float(self.num_batches_tracked)
        of_batch = self.training or (self.running_mean is None and self.running_var is None)
        track = not self.training or self.track_running_stats
        return _norms.batch_norm(x, self.running_mean if track else None, self.running_var if track else None,
                                 self.weight, self.bias, of_batch, momentum, self.eps, group=self.sharding.group)


_FORMS = {form: mixin for mixin, forms in (
    (_Conv, (_nn.Conv1d, _nn.Conv2d, _nn.Conv3d)),
    (_ConvTranspose, (_nn.ConvTranspose1d, _nn.ConvTranspose2d, _nn.ConvTranspose3d)),
    (_Pool, (_nn.MaxPool1d, _nn.MaxPool2d, _nn.MaxPool3d, _nn.AvgPool1d, _nn.AvgPool2d, _nn.AvgPool3d)),
    (_Upsample, (_nn.Upsample,)), (_GroupNorm, (_nn.GroupNorm,)), (_LayerNorm, (_nn.LayerNorm,)),
    (_BatchNorm, (_nn.BatchNorm1d, _nn.BatchNorm2d, _nn.BatchNorm3d))) for form in forms}


def _define(base, mixin):
    def extra_repr(self):
        return f"{base.extra_repr(self)}, sharded dim={self.sharding.dim}"

    return type(f"DomainParallel{base.__name__}", (mixin, base), {"__module__": __name__, "extra_repr": extra_repr,
                                                                  "__doc__": f"{base.__name__} on a sharded axis."})


# by the module's class; those of torch.nn stand here under their names, so that they can be pickled
_classes = {base: _define(base, mixin) for base, mixin in _FORMS.items()}
globals().update({one.__name__: one for one in _classes.values()})

_ELEMENTWISE = (
    _nn.Identity, _nn.ReLU, _nn.ReLU6, _nn.LeakyReLU, _nn.PReLU, _nn.RReLU, _nn.ELU, _nn.CELU, _nn.SELU, _nn.GELU,
    _nn.SiLU, _nn.Mish, _nn.Softplus, _nn.Softsign, _nn.Softshrink, _nn.Hardshrink, _nn.Hardsigmoid, _nn.Hardswish,
    _nn.Hardtanh, _nn.Sigmoid, _nn.LogSigmoid, _nn.Tanh, _nn.Tanhshrink, _nn.Threshold, _nn.Dropout, _nn.AlphaDropout)
_CONTAINERS = (_nn.Sequential, _nn.ModuleList, _nn.ModuleDict)
_LISTS = (_nn.ParameterList, _nn.ParameterDict)
# layers that are not leaves, and mix positions by their own forward
_MIXING_PARENTS = (_nn.MultiheadAttention, _nn.Transformer, _nn.TransformerEncoder, _nn.TransformerDecoder,
                   _nn.TransformerEncoderLayer, _nn.TransformerDecoderLayer)
_POINTWISE = "1x1 convolution: every position by itself"
_NOT_KNOWN = ("mixes positions, or may do so, and has no domain-parallel form: it sees this rank's part only")


def _is_pointwise(module):
    return all(k == 1 and s == 1 for k, s in zip(module.kernel_size, module.stride)) and \
        (isinstance(module.padding, str) or not any(module.padding)) and \
        not any(getattr(module, "output_padding", (0,)))


def _forward_pointwise(module, x):
    """The forward of a 1x1 convolution, also on a rank without rows, which torch refuses."""
    forward = _functools.partial(type(module).forward, module)
    empty = [axis for axis in range(-_dims(module), 0) if x.shape[axis] == 0]
    if not empty:
        return forward(x)
    ends = [int(axis in empty) for axis in range(-1, -_dims(module) - 1, -1)]
    y = forward(_torch.nn.functional.pad(x, [number for end in ends for number in (0, end)]))
    for axis in empty:
        y = y.narrow(axis, 0, 0)
    return y


def _form_of(module):
    """The class of torch.nn whose domain-parallel form stands for the module, if any: its own forward must be that."""
    for base in _FORMS:
        if isinstance(module, base):
            return base if type(module).forward is base.forward else None
    return None


def _why_not(module, base, dim):
    """Why a module that has a domain-parallel form stays, or None."""
    if isinstance(module, _nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return f"{_NOT_KNOWN} (a lazy module: convert it after its first call)"
    if issubclass(base, (_nn.Conv1d, _nn.Conv2d, _nn.Conv3d, _nn.ConvTranspose1d, _nn.ConvTranspose2d,
                         _nn.ConvTranspose3d)):
        if _is_pointwise(module):
            return _POINTWISE
    if _FORMS[base] in (_Conv, _ConvTranspose, _Pool) and dim < 0 and -dim > _dims(module):
        return f"{_NOT_KNOWN} (dim {dim} is no spatial axis of {base.__name__})"
    if getattr(module, "return_indices", False):
        return f"{_NOT_KNOWN} (return_indices)"
    if getattr(module, "divisor_override", None) is not None:
        return f"{_NOT_KNOWN} (divisor_override)"
    if getattr(module, "recompute_scale_factor", None):
        return f"{_NOT_KNOWN} (recompute_scale_factor)"
    if base is _nn.Upsample and module.mode == "area":
        return f"{_NOT_KNOWN} (mode area)"
    return None


def _reason(module, dim):
    """Why a leaf without a domain-parallel form stays."""
    if isinstance(module, _ELEMENTWISE) and type(module).__module__.startswith("torch.nn"):
        return "element-wise"
    if isinstance(module, (_nn.Dropout1d, _nn.Dropout2d, _nn.Dropout3d, _nn.FeatureAlphaDropout)):
        return "drops channels, each rank its own"
    if isinstance(module, (_nn.Linear, _nn.Bilinear)):
        return f"{_NOT_KNOWN}: the last axis is the sharded one" if dim == -1 else "mixes the last axis only"
    if isinstance(module, (_nn.Softmax, _nn.LogSoftmax, _nn.Softmin, _nn.GLU)):
        if module.dim is not None and module.dim != dim and (module.dim < 0) == (dim < 0):
            return f"mixes axis {module.dim} only"
    if isinstance(module, (_nn.Softmax2d, _nn.ChannelShuffle)):
        return "mixes channels only"
    if isinstance(module, _nn.PixelShuffle):
        return "makes rows of channels, each position by itself"
    if isinstance(module, (_nn.Embedding,)):
        return "every position by itself"
    return _NOT_KNOWN


def _converted(module, base, group, dim):
    kind = _classes.get(type(module))
    if kind is None:  # a user's subclass, or one with parametrizations
        kind = _classes[type(module)] = _define(type(module), _FORMS[base])
    form = kind.__new__(kind)
    form.__dict__ = _copy.copy(module.__dict__)  # parameters, buffers and hooks stay the same objects
    form.sharding = _Sharding(group, dim)
    return form


def convert(module, group=None, dim=-2):
    """The module with its convolutions, poolings, Upsample and norms in their domain-parallel forms, for inputs whose
    axis dim is sharded over the group: (module, report). Works in place, as Module.to does: containers stay the same
    objects, and so do parameters, buffers and hooks; only where the root itself is such a layer is another returned.
    What report.kept names as mixing positions must be looked at: it sees one rank's rows only."""
    if not isinstance(module, _nn.Module):
        raise ValueError(f"[convert] expected a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(dim, int) or isinstance(dim, bool):
        raise ValueError(f"[convert] expected dim as an int, got {dim!r}")
    _C.parallel.split_sizes(0, group)  # a TypeError for what is no group
    report, seen = ConvertReport(), {}

    def visit(one, name):
        if id(one) in seen:  # the same module in two places stays one
            new, kind, reason = seen[id(one)]
            if kind is not None:
                report.converted[name] = kind
            elif reason is not None:
                report.kept[name] = reason
            return new
        base, new, kind, reason = _form_of(one), one, None, None
        if hasattr(one, "sharding") and isinstance(one.sharding, _Sharding):
            reason = "is domain-parallel already"
        elif base is not None:
            reason = _why_not(one, base, dim)
            if reason == _POINTWISE:
                one.forward = _functools.partial(_forward_pointwise, one)
            if reason is None:
                new = _converted(one, base, group, dim)
                kind = type(new).__name__
        elif isinstance(one, _MIXING_PARENTS):
            reason = _NOT_KNOWN
        elif isinstance(one, _LISTS) or isinstance(one, _CONTAINERS):
            pass
        elif not one._modules:
            reason = _reason(one, dim)
        if kind is not None:
            report.converted[name] = kind
        elif reason is not None:
            report.kept[name] = reason
        seen[id(one)] = new, kind, reason
        seen[id(new)] = seen[id(one)]
        if kind is None and reason is None:
            for child_name, child in list(one._modules.items()):
                if child is not None:
                    one._modules[child_name] = visit(child, f"{name}.{child_name}" if name else child_name)
        return new

    return visit(module, ""), report
