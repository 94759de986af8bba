# SPDX-License-Identifier: Apache-2.0
"""Linear layers by the two libraries in torch's wheel, for what a layer's matrix products cost by themselves."""

import torch


def _fused(x, weight, bias=None):
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _fused(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return _fused(grad, weight.t()), _fused(grad.t(), x.t()), grad.sum(0)


def onednn(x, weight, bias):
    if torch.is_autocast_enabled("cpu"):  # which does not know this operator
        x, weight, bias = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight, bias))
    return _OneDnn.apply(x, weight, bias)


aten = torch.nn.functional.linear
