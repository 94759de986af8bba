# SPDX-License-Identifier: Apache-2.0
"""Attention of a pixel over its own observations, against the sum over pixels written out."""

import pytest
import references
import torch
from conftest import near
from references import cu_of, rejected

import halcyon

COUNTS = [[3, 0, 1, 0, 6], [0, 0, 4], [1, 1], [0, 70, 2]]
NAMES = ("Q", "tokens", "W_k", "W_v", "B_v")


def inputs(counts, heads=16, groups=1, width=4, token=3, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    shapes = ((len(counts), heads, width), (sum(counts), token), (groups * width, token), (groups * width, token),
              (groups * width,))
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in zip(NAMES, shapes)}


def ours(x, counts, groups=1, **options):
    return halcyon.pixel_attention(x["Q"], x["tokens"], x["W_k"], x["W_v"], cu_of(counts), max(counts, default=0),
                                   n_kv_heads=groups, B_v=x["B_v"], **options)


@pytest.mark.parametrize("dtype, forward, backward", [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 2e-5),
                                                      (torch.bfloat16, 1e-2, 2e-2)])
@pytest.mark.parametrize("heads, groups", [(16, 1), (32, 2), (64, 4)])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_against_the_formula(counts, heads, groups, dtype, forward, backward):
    x = inputs(counts, heads, groups, dtype=dtype)
    wide = {name: t.detach().double().requires_grad_() for name, t in x.items()}
    y = ours(x, counts, groups)
    expected = references.pixel_attention(wide["Q"], wide["tokens"], wide["W_k"], wide["W_v"], cu_of(counts), groups,
                                          B_v=wide["B_v"])
    assert y.dtype == dtype
    near(y, expected, forward)
    weight = torch.randn(y.shape, dtype=torch.float64)
    (y.double() * weight).sum().backward()
    (expected * weight).sum().backward()
    for name in NAMES:
        assert x[name].grad.dtype == dtype
        near(x[name].grad, wide[name].grad, backward)


def test_gradcheck():
    counts = [2, 0, 3]
    x = inputs(counts, width=2, token=2)
    assert torch.autograd.gradcheck(lambda *tensors: ours(dict(zip(NAMES, tensors)), counts), tuple(x.values()),
                                    fast_mode=True)


def test_scale_is_honoured_and_the_key_bias_cancels():
    counts = [3, 2]
    x = inputs(counts)
    plain = (x["Q"], x["tokens"], x["W_k"], x["W_v"], cu_of(counts))
    near(halcyon.pixel_attention(*plain, 3, scale=0.1), references.pixel_attention(*plain, scale=0.1), 1e-12)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    y = halcyon.pixel_attention(*plain, 3, B_k=bias)
    near(y, references.pixel_attention(*plain), 1e-12)
    y.square().sum().backward()
    assert bias.grad is None or bias.grad.abs().max() < 1e-12


@pytest.mark.parametrize("counts", [[0, 0, 0], []], ids=str)
def test_without_observations(counts):
    x = inputs(counts)
    y = ours(x, counts)
    assert y.shape == (len(counts), 16, 4) and not y.any()
    y.sum().backward()
    for name in NAMES:
        assert x[name].grad is not None and x[name].grad.shape == x[name].shape and not x[name].grad.any()


def test_empty_pixels_are_exactly_zero():
    y = ours(inputs(COUNTS[0]), COUNTS[0])
    assert not y[[1, 3]].any() and y[[0, 2, 4]].any()


@pytest.mark.parametrize("counts", [[5, 0, 3, 4, 200], [1, 2, 3, 0, 9, 1], [0, 0]], ids=str)
@pytest.mark.parametrize("heads, groups", [(16, 1), (64, 4)])
def test_grouped_is_ungrouped_bit_for_bit(counts, heads, groups):
    results = []
    for group_map in (None, halcyon.build_pixel_group_map(cu_of(counts))):
        x = inputs(counts, heads, groups, dtype=torch.float32)
        y = ours(x, counts, groups, group_map=group_map)
        y.square().sum().backward()
        results.append([y] + [t.grad for t in x.values()])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_ids_of_both_widths_strides_and_the_longest_pixel_do_not_matter():
    counts = COUNTS[0]
    x = inputs(counts, dtype=torch.float32)
    y = ours(x, counts)
    strided = {name: t.detach().T.contiguous().T if t.dim() == 2 else t for name, t in x.items()}
    strided["Q"] = torch.stack([x["Q"].detach(), -x["Q"].detach()], 1)[:, 0]
    assert torch.equal(ours(strided, counts), y)
    plain = [x[name] for name in NAMES[:4]]
    long = halcyon.pixel_attention(*plain, cu_of(counts).long(), 1000, B_v=x["B_v"], force_fp32=True)
    assert torch.equal(long, y)


def test_registered_operator_and_reruns_agree():
    counts = COUNTS[0]
    x = [t.detach() for t in inputs(counts, dtype=torch.float32).values()]
    groups = halcyon.build_pixel_group_map(cu_of(counts))
    y = halcyon.pixel_attention(*x[:4], cu_of(counts), 6, B_v=x[4])
    for _ in range(3):
        assert torch.equal(y, torch.ops.halcyon.pixel_attention(*x[:4], cu_of(counts), 6, B_v=x[4],
                                                                program_ptr=groups.program_ptr,
                                                                program_pixels=groups.program_pixels))


def test_autocast():
    counts = COUNTS[0]
    x = inputs(counts, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ours(x, counts)
    near(low, ours(x, counts), 2e-2)


@pytest.mark.parametrize("change", [
    dict(Q=torch.zeros(2, 64)), dict(Q=torch.zeros(2, 16, 5)), dict(Q=torch.zeros(3, 16, 4)),
    dict(Q=torch.zeros(2, 15, 4), n_kv_heads=2), dict(Q=torch.zeros(2, 16, 4).int()),
    dict(Q=torch.zeros(2, 16, 4, device="meta")), dict(tokens=torch.zeros(3)), dict(tokens=torch.zeros(3, 4)),
    dict(tokens=torch.zeros(3, 3, device="meta")), dict(tokens=torch.zeros(3, 3).long()),
    dict(W_k=torch.zeros(4, 2)), dict(W_k=torch.zeros(5, 3)), dict(W_v=torch.zeros(4)), dict(W_v=torch.zeros(8, 3)),
    dict(B_v=torch.zeros(3)), dict(B_k=torch.zeros(3)), dict(cu_seqlens_k=torch.tensor([0, 1])),
    dict(cu_seqlens_k=torch.tensor([0, 1, 2])), dict(cu_seqlens_k=torch.tensor([1, 1, 3])),
    dict(cu_seqlens_k=torch.tensor([0, 4, 3])), dict(cu_seqlens_k=torch.tensor([0, -1, 3])),
    dict(cu_seqlens_k=torch.tensor([0., 1, 3])), dict(cu_seqlens_k=torch.tensor([[0, 1, 3]])),
    dict(max_seqlen_k=-1), dict(n_kv_heads=0), dict(n_kv_heads=-1),
], ids=lambda c: " ".join(f"{k}={list(v.shape) if isinstance(v, torch.Tensor) else v}"[:40] for k, v in c.items()))
def test_refused(change):
    good = dict(Q=torch.zeros(2, 16, 4), tokens=torch.zeros(3, 3), W_k=torch.zeros(4, 3), W_v=torch.zeros(4, 3),
                cu_seqlens_k=torch.tensor([0, 1, 3]), max_seqlen_k=2)
    assert halcyon.pixel_attention(**good).shape == (2, 16, 4)
    with rejected():
        halcyon.pixel_attention(**(good | change))


@pytest.mark.parametrize("ptr, pixels", [([0, 1], [7]), ([0, 9], [0, 1]), ([0, 1], [0]), ([0, 1, 2], [0, 0]),
                                         ([], []), ([1, 0], [0, -1])])
def test_a_wrong_group_map_never_changes_numbers(ptr, pixels):
    x = inputs([1, 2], dtype=torch.float32)
    y = ours(x, [1, 2])
    group_map = halcyon.PixelGroupMap(torch.tensor(ptr).int(), torch.tensor(pixels).int())
    try:
        assert torch.equal(ours(x, [1, 2], group_map=group_map), y)
    except ValueError as error:
        assert str(error).startswith("[")
