# SPDX-License-Identifier: Apache-2.0
"""Shift, scale and gate of a condition: the functions and the projection."""

import pytest
import references
import torch
from conftest import near
from references import rejected
from torch.nn import functional as F

import halcyon

BOUNDS = [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
FUNCTIONS = {"modulate": lambda x, shift, scale: shift + x * (1 + scale),
             "gated_residual": lambda residual, branch, gate: residual + gate * branch}


def inputs(name, shape, dtype=torch.float64):
    torch.manual_seed(3)
    small = (shape[0], shape[-1])
    shapes = (shape, small, small) if name == "modulate" else (shape, shape, small)
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


def reference(name, tensors, rank):
    wide = [t if t.dim() == rank else t.view(t.shape[0], *[1] * (rank - 2), t.shape[1]) for t in tensors]
    return FUNCTIONS[name](*wide)


@pytest.mark.parametrize("dtype, bound", BOUNDS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 5, 4), (1, 1, 1, 1), (2, 0, 4)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_the_formula(name, shape, dtype, bound):
    x = inputs(name, shape, dtype)
    wide = [t.detach().double().requires_grad_() for t in x]
    y, expected = getattr(halcyon, name)(*x), reference(name, wide, len(shape))
    assert y.dtype == dtype
    near(y, expected, bound)
    y.double().square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(x, wide):
        near(ours.grad, theirs.grad, 3 * bound)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck_and_strides(name):
    x = inputs(name, (2, 3, 2, 3))
    assert torch.autograd.gradcheck(getattr(halcyon, name), x)
    strided = [t.detach().transpose(0, -1).contiguous().transpose(0, -1) for t in x]
    near(getattr(halcyon, name)(*strided), reference(name, x, 4), 1e-14)


@pytest.mark.parametrize("at, bad", [(0, torch.zeros(2, 4)), (0, torch.zeros(2, 1, 1, 3, 4)), (1, torch.zeros(2, 5)),
                                     (2, torch.zeros(3, 4)), (2, torch.zeros(2, 1, 4)), (0, torch.zeros(2, 3, 4).int()),
                                     (2, torch.zeros(2, 4, device="meta"))])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_refused(name, at, bad):
    x = [t.detach().float() for t in inputs(name, (2, 3, 4))]
    x[at] = bad
    with rejected(name):
        getattr(halcyon, name)(*x)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("zero", [True, False])
def test_adaln_modulation(blocks, zero):
    module = halcyon.AdaLNModulation(4, 6, n_blocks=blocks, zero_init=zero)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == {
        "modulation.1.weight": (12 * blocks, 6), "modulation.1.bias": (12 * blocks,)}
    assert any(p.any() for p in module.parameters()) is not zero
    references.randomise(module)
    c = torch.randn(3, 6)
    outputs, state = module(c), module.state_dict()
    assert type(outputs) is tuple and len(outputs) == 3 * blocks
    near(torch.cat(outputs, 1), F.linear(F.silu(c), state["modulation.1.weight"], state["modulation.1.bias"]), 1e-6)


@pytest.mark.parametrize("arguments", [(0, 6), (4, -1), (4, 6, 0), (-4, 6)])
def test_adaln_modulation_refuses_sizes(arguments):
    with rejected("AdaLNModulation"):
        halcyon.AdaLNModulation(*arguments)


@pytest.mark.parametrize("c", [torch.zeros(3, 5), torch.zeros(6), torch.zeros(3, 1, 6), torch.zeros(3, 6).long()])
def test_adaln_modulation_refuses_conditions(c):
    with rejected("AdaLNModulation"):
        halcyon.AdaLNModulation(4, 6)(c)
