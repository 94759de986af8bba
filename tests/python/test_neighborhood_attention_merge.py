# SPDX-License-Identifier: Apache-2.0
"""Plain attention, packed sequences of both kinds, and merging partial attentions through their lses."""

import itertools
import math

import neighborhood_goldens as goldens
import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from torch.autograd import gradcheck

import halcyon

#          dtype: (out, lse, gradient), relative to the largest value
BOUNDS = {torch.float64: (1e-12, 1e-12, 1e-11), torch.float32: (5e-6, 5e-6, 2e-5), torch.bfloat16: (8e-3, 5e-6, 3e-2),
          torch.float16: (1e-3, 5e-6, 4e-3)}
BACKENDS = (None, "reference", "tiled", "gemm")


def operands(batch=2, queries=9, keys=9, heads=4, groups=2, d=5, e=3, dtype=torch.float64):
    shapes = (batch, queries, heads, d), (batch, keys, groups, d), (batch, keys, groups, e)
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def lower(queries, keys):
    return torch.ones(queries, keys).bool().tril()


def widened(tensors):
    return [t.detach().double().requires_grad_() for t in tensors]


def compare(ours, wanted, mine, wide, dtype):
    """Pairs (out, lse), both differentiated in every operand."""
    forward, for_lse, backward = BOUNDS[dtype]
    assert ours[0].dtype == dtype and ours[1].dtype == torch.promote_types(dtype, torch.float32)
    near(ours[0], wanted[0], forward)
    finite = wanted[1].isfinite()
    assert torch.equal(ours[1] == -math.inf, ~finite)
    near(ours[1][finite], wanted[1][finite], for_lse)
    incoming = [torch.randn_like(wanted[0]), torch.randn_like(wanted[1])]
    got = torch.autograd.grad(ours, mine, [g.to(t.dtype) for g, t in zip(incoming, ours)])
    incoming = [g.to(t.dtype).double() for g, t in zip(incoming, ours)]
    for a, b in zip(got, torch.autograd.grad(wanted, wide, incoming)):
        near(a, b, backward)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries, keys", [(9, 9), (1, 1), (5, 40), (40, 5), (70, 70)])
def test_attention(queries, keys, causal, dtype):
    """Causal: query i sees keys 0..i, whatever the two lengths are."""
    mine = operands(queries=queries, keys=keys, dtype=dtype)
    wide = widened(mine)
    visible = lower(queries, keys) if causal else None
    for backend, scale in zip(BACKENDS, (None, 0.3, 0, -1)):
        ours = halcyon.attention(*mine, causal, scale, return_lse=True, backend=backend)
        compare(ours, reference.masked_attention(*wide, visible, scale), mine, wide, dtype)
    out, _ = halcyon.attention(*mine, causal, return_lse=True)
    assert torch.equal(halcyon.attention(*mine, is_causal=causal), out)


def test_attention_is_the_full_window():
    q, k, v = operands(queries=12, keys=12)
    near(halcyon.attention(q, k, v), halcyon.na1d(q, k, v, 12), 1e-13)
    near(halcyon.attention(q, k, v, is_causal=True), halcyon.na1d(q, k, v, 12, is_causal=True), 1e-13)


def packed(counts_q, counts_k, causal):
    def attend(q, k, v):
        parts = [reference.masked_attention(a, b, c, lower(a.shape[1], b.shape[1]) if causal else None)
                 for a, b, c in zip(q.split(counts_q, 1), k.split(counts_k, 1), v.split(counts_k, 1))]
        return tuple(torch.cat(part, 1) for part in zip(*parts))
    return attend


@pytest.mark.parametrize("backend", BACKENDS)
def test_varlen_golden(shared, backend):
    config, x = goldens.case(shared, "extensions", "varlen")
    out, lse = halcyon.attention(x["query"], x["key"], x["value"], seqlens_Q=config["seqlens_Q"],
                                 seqlens_KV=config["seqlens_KV"], return_lse=True, backend=backend)
    near(out, x["out"], 1e-12)
    near(lse, x["lse"], 1e-12)


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda counts: torch.tensor(counts).int()])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("counts_q, counts_k", [([5, 0, 9], [4, 3, 10]), ([3, 2], [0, 4]), ([7], [7]),
                                                ([0, 0], [2, 0]), ([0, 3, 0], [0, 0, 0]),
                                                ([20, 1, 40], [33, 17, 1])], ids=str)
def test_packed_sequences(counts_q, counts_k, causal, kind):
    """A query without any key gives 0 and -inf, and gradients that are zero, not NaN."""
    for dtype in (torch.float64, torch.bfloat16):
        mine = operands(1, sum(counts_q), sum(counts_k), dtype=dtype)
        wide = widened(mine)
        ours = halcyon.attention(*mine, causal, seqlens_Q=kind(counts_q), seqlens_KV=kind(counts_k), return_lse=True)
        compare(ours, packed(counts_q, counts_k, causal)(*wide), mine, wide, dtype)


def test_no_keys_at_all():
    q, k, v = operands(keys=0)
    out, lse = halcyon.attention(q, k, v, return_lse=True)
    assert not out.any() and (lse == -math.inf).all()
    out.sum().backward()
    assert not q.grad.any() and k.grad.shape == k.shape


@pytest.mark.parametrize("kind", [list, torch.tensor])
@pytest.mark.parametrize("counts", [[6, 0, 9, 40], [4], [5, 5]], ids=str)
@pytest.mark.parametrize("options", [dict(), dict(dilation=2, kernel_size=2), dict(stride=2),
                                     dict(is_causal=True, stride=3), dict(scale=0.2, bias=True),
                                     dict(periodic=True, bias=True)], ids=str)
def test_na1d_varlen(options, counts, kind):
    options = dict(kernel_size=4) | options
    shapes = [(1, sum(counts), 4, 5), (1, sum(counts), 2, 5), (1, sum(counts), 2, 3)]
    bias = [(4, 2 * options["kernel_size"] - 1)] if options.pop("bias", False) else []
    for dtype, backend in zip((torch.float64, torch.float32, torch.bfloat16, torch.float16), BACKENDS):
        mine = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes + bias]
        wide = widened(mine)

        def each(q, k, v, rpb=None):
            parts = [reference.neighborhood_attention(*part, **options, rpb=rpb)
                     for part in zip(*(t.split(counts, 1) for t in (q, k, v))) if part[0].shape[1]]
            return tuple(torch.cat(part, 1) for part in zip(*parts))
        more = dict(rpb=mine[3]) if bias else {}
        ours = halcyon.na1d_varlen(*mine[:3], seqlens=kind(counts), **options, **more, return_lse=True,
                                   backend=backend)
        compare(ours, each(*wide), mine, wide, dtype)
    plain = halcyon.na1d_varlen(*mine[:3], options.pop("kernel_size"), counts, **options, **more, backend="gemm")
    assert torch.equal(plain, ours[0])


@pytest.mark.parametrize("name", goldens.CASES["merge"])
def test_merge_goldens(shared, name):
    config, x = goldens.case(shared, "merge", name)
    for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        parts = [[x[f"{kind}{i}"].to(dtype) for i in range(config["n"])] for kind in ("out", "lse")]
        out, lse = halcyon.merge_attentions(*parts)
        assert out.dtype == lse.dtype == dtype
        near(out, x["out"], bound)
        near(lse, x["lse"], bound)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_merge_gradients(n):
    outs = [torch.randn(1, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(n)]
    lses = [(3 * torch.randn(1, 2, 2, 2, dtype=torch.float64)).requires_grad_() for _ in range(n)]
    function = lambda *t: halcyon.merge_attentions(t[:n], list(t[n:]))   # noqa: E731
    assert gradcheck(function, outs + lses, check_forward_ad=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cuts", [(0, 4, 9), (0, 1, 5, 9), (0, 2, 2, 9)], ids=str)
def test_merging_disjoint_keys_is_the_joint_attention(cuts, dtype):
    """Also in every gradient, and with a part that has no key."""
    mine = operands(dtype=dtype)
    wide = widened(mine)
    parts = [halcyon.attention(mine[0], mine[1][:, a:b], mine[2][:, a:b], return_lse=True)
             for a, b in itertools.pairwise(cuts)]
    compare(halcyon.merge_attentions(*zip(*parts)), reference.masked_attention(*wide), mine, wide, dtype)


def test_merging_a_neighborhood_with_other_tokens():
    """What additional keys do, by hand; the incoming gradients reach both branches exactly."""
    x = [torch.randn(2, 6, 7, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    more = [torch.randn(2, 5, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    near_by = halcyon.na2d(*x, 3, return_lse=True)
    far = halcyon.attention(x[0].flatten(1, 2), *more, return_lse=True)
    merged = halcyon.merge_attentions([near_by[0], far[0].view_as(near_by[0])],
                                      [near_by[1], far[1].view_as(near_by[1])])
    joint = halcyon.na2d(*x, 3, additional_keys=more[0], additional_values=more[1], return_lse=True)
    for a, b in zip(merged, joint):
        near(a, b, 1e-13)
    incoming = [torch.randn_like(t) for t in joint]
    for a, b in zip(*(torch.autograd.grad(results, x + more, incoming) for results in (merged, joint))):
        near(a, b, 1e-12)
