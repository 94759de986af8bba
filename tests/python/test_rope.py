# SPDX-License-Identifier: Apache-2.0
"""Rope tables, the rotation and causal masks."""

import math

import pytest
import references
import torch
from conftest import near
from references import rejected

import halcyon


@pytest.mark.parametrize("dim, length, theta", [(2, 1, 100.0), (8, 5, 100.0), (6, 100, 10000.0), (4, 0, 100.0)])
def test_rope_tables(dim, length, theta):
    angle = torch.arange(length).double()[:, None] * theta ** (-2 * torch.arange(dim // 2).double() / dim)
    tables = halcyon.rope_tables(dim, length, theta=theta)
    for table, expected in zip(tables, (angle.cos(), angle.sin())):
        assert table.dtype == torch.float32 and table.shape == (length, dim)
        near(table, expected.repeat_interleave(2, 1), 1e-5)
    assert torch.equal(halcyon.rope_tables(dim, length)[0], halcyon.rope_tables(dim, length, 100.0)[0])


@pytest.mark.parametrize("arguments", [(3, 5), (0, 5), (-2, 5), (4, -1), (4, 5, 0.0), (4, 5, -1.0)])
def test_rope_tables_refuse(arguments):
    with rejected("rope_tables"):
        halcyon.rope_tables(*arguments)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.float64, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (2, 3, 1, 5, 4)], ids=str)
def test_apply_rope(shape, dtype, bound):
    cos, sin = halcyon.rope_tables(4, 5)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    y = halcyon.apply_rope(x, cos, sin)
    assert y.dtype == dtype
    near(y, references.rotate(x.detach().double(), cos, sin), bound)
    weight = torch.randn(shape, dtype=dtype)
    y.backward(weight)
    assert x.grad.dtype == dtype
    near(x.grad, references.rotate(weight.double(), cos, -sin), bound)


def test_apply_rope_trains_its_tables():
    tables = [t.requires_grad_() for t in halcyon.rope_tables(4, 3)]
    copies = [t.detach().clone().requires_grad_() for t in tables]
    x = torch.randn(2, 3, 4)
    halcyon.apply_rope(x, *tables).square().sum().backward()
    references.rotate(x, *copies).square().sum().backward()
    for ours, expected in zip(tables, copies):
        near(ours.grad, expected.grad, 1e-5)


@pytest.mark.parametrize("x, cos", [(torch.zeros(2, 3, 4), torch.zeros(4, 4)), (torch.zeros(3, 6), torch.zeros(3, 4)),
                                    (torch.zeros(4), torch.zeros(1, 4)), (torch.zeros(3, 4).int(), torch.zeros(3, 4)),
                                    (torch.zeros(3, 4), torch.zeros(3, 4).long()),
                                    (torch.zeros(3, 4), torch.zeros(3, 4, device="meta"))])
def test_apply_rope_refuses(x, cos):
    with rejected("apply_rope"):
        halcyon.apply_rope(x, cos, cos)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("window", [None, 1, 2, 9])
def test_mask_causal(linear, window):
    attn = torch.randn(2, 4, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    kept = references.causal(4, window)[:, :, None, None].expand_as(attn)
    y = halcyon.mask_causal(attn, linear=linear, window=window)
    assert torch.equal(y, torch.where(kept, attn, torch.tensor(0.0 if linear else -math.inf, dtype=attn.dtype)))
    y[kept].sum().backward()
    assert torch.equal(attn.grad, kept.to(attn.dtype))


@pytest.mark.parametrize("attn, window", [(torch.zeros(2, 3, 3, 1), None), (torch.zeros(1, 2, 2, 1, 1), 0),
                                          (torch.zeros(1, 2, 2, 1, 1), -1), (torch.zeros(1, 2, 2, 1, 1).int(), None)])
def test_mask_causal_refuses(attn, window):
    with rejected("mask_causal"):
        halcyon.mask_causal(attn, window=window)
