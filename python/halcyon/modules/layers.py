# SPDX-License-Identifier: Apache-2.0
"""The leaves: torch's layers with Halcyon's operators in their forwards, so that they are what isinstance, PEFT and
parametrizations take them for."""

import math
import threading

import torch

ops = torch.ops.halcyon
_state = threading.local()  # of a thread: whether its new linear layers are drawn by their owner


class later_linears:
    """Within it new linear layers are only allocated: their owner draws them."""

    def __enter__(self):
        self._before, _state.later = getattr(_state, "later", False), True

    def __exit__(self, *_):
        _state.later = self._before


class Linear(torch.nn.Linear):
    """torch.nn.Linear by the library that is fastest on this processor (halcyon/ops/linear/routes.h)."""

    def reset_parameters(self):
        if not getattr(_state, "later", False) and self.weight.numel() > 0:
            super().reset_parameters()

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)


class GELU(torch.nn.GELU):
    """torch.nn.GELU("tanh") in one pass."""

    def __init__(self):
        super().__init__(approximate="tanh")

    def forward(self, x):
        return ops.gelu_tanh(x) if self.approximate == "tanh" else super().forward(x)


class RMSNorm(torch.nn.RMSNorm):
    """torch.nn.RMSNorm over the last axis, one pass each way."""

    def forward(self, x):
        return ops.rms_norm(x, self.weight, self.eps)


class PatchConv(torch.nn.Module):
    """A convolution whose kernel is its stride, on patches that lie side by side: (..., in * p * p) -> (..., out)."""

    def __init__(self, in_channels, out_channels, patch):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(out_channels, in_channels, patch, patch))
        self.bias = torch.nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self):
        _draw(self, self.weight[0].numel())

    def forward(self, patches):
        return ops.linear(patches, self.weight.flatten(1), self.bias)

    def extra_repr(self):
        return f"weight={tuple(self.weight.shape)}"


class PatchConvTranspose(torch.nn.Module):
    """The transposed convolution: (..., in) -> patches (..., out * p * p), the last axis (channel, row, column)."""

    def __init__(self, in_channels, out_channels, patch):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(in_channels, out_channels, patch, patch))
        self.bias = torch.nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self):
        _draw(self, self.weight[0].numel())  # as torch counts the fan-in of a transposed convolution

    def forward(self, tokens):
        bias = self.bias.unsqueeze(1).expand(-1, self.weight.shape[2] * self.weight.shape[3]).flatten()
        return ops.linear(tokens, self.weight.flatten(1).t(), bias)

    extra_repr = PatchConv.extra_repr


def _draw(layer, fan_in):
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0
    for parameter in layer.parameters(recurse=False):
        torch.nn.init.uniform_(parameter, -bound, bound)


def is_plain(module, kind):
    """Whether calling this module means what its class computes of its own weights, and nothing more: of exactly that
    class, without hooks, another forward or a compiled one. Only then may an operator take its weights instead."""
    return (type(module) is kind and "forward" not in module.__dict__ and module._compiled_call_impl is None
            and not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                     or module._backward_pre_hooks)
            and not torch.nn.modules.module._has_any_global_hook())


def at(sequence, place):
    """The layer at this place of a Sequential; none of what somebody has put in its place."""
    return sequence[place] if isinstance(sequence, torch.nn.Sequential) and len(sequence) > 0 else None


def state_of(module):
    """What tells whether a module's tensors are those of before: where they lie and how often they were written to."""
    return [(t.data_ptr(), t.dtype, t.shape, t.stride(), 0 if t.is_inference() else t._version)
            for t in (*module.parameters(), *module.buffers())]
