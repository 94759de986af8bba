# SPDX-License-Identifier: Apache-2.0
"""na*_qk and na*_av: goldens, random problems, what empty slots hold, nested tensors, the golden of forward mode."""

import math
import random

import neighborhood_goldens as goldens
import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from neighborhood_problems import DTYPES, WIDTHS, draw_axes, laid_out
from torch.autograd import forward_ad

import halcyon

#          dtype: (forward, gradient), relative to the largest value
BOUNDS = {torch.float64: (1e-12, 1e-12), torch.float32: (2e-6, 5e-6), torch.bfloat16: (5e-3, 5e-3),
          torch.float16: (1e-3, 1e-3)}


def operators(axes):
    return getattr(halcyon, f"na{axes}d_qk"), getattr(halcyon, f"na{axes}d_av")


def near_filled(actual, wanted, bound):
    """near() where wanted is finite; -inf at the same places."""
    filled = wanted > -math.inf
    assert torch.equal(actual > -math.inf, filled)
    near(actual[filled], wanted[filled], bound)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", goldens.CASES["unfused"])
def test_goldens(shared, name, dtype):
    config, x = goldens.case(shared, "unfused", name)
    forward, backward = BOUNDS[dtype]
    qk, av = operators(config["dims"])
    options = {k: config[k] for k in ("kernel_size", "dilation", "is_causal")}
    names = ("query", "key", "value", "rpb", "add_key", "add_value", "prob")
    own = {k: x[k].to(dtype).requires_grad_() for k in names if k in x}
    attn = qk(own["query"], own["key"], **options, additional_keys=own.get("add_key"), rpb=own.get("rpb"))
    near_filled(attn, x["attn"], forward)
    out = av(own["prob"], own["value"], **options, additional_values=own.get("add_value"))
    near(out, x["out"], forward)
    assert attn.dtype == out.dtype == dtype
    empty = x["attn"] == -math.inf
    attn.backward(x["d_attn"].masked_fill(empty, math.nan).to(dtype))   # what comes in there is not read
    out.backward(x["d_out"].to(dtype))
    for k, t in own.items():
        near(t.grad, x[f"d_{k}"], backward)
    assert not own["prob"].grad[empty].any()


@pytest.mark.parametrize("seed", range(144))
def test_random_problem(seed):
    """Through 3 ranks and 4 dtypes, in every layout, with incoming gradients in any layout too."""
    dice, dtype, axes = random.Random(1000 + seed), DTYPES[seed // 3 % 4], 1 + seed % 3
    lengths, kernel, dilation, _, causal, _ = draw_axes(dice, axes)
    options, batch = dict(kernel_size=kernel, dilation=dilation, is_causal=causal), dice.choice((0, 1, 1, 2))
    heads, d, e, n = dice.choice((1, 2, 3)), dice.choice(WIDTHS), dice.choice(WIDTHS), dice.choice((0, 0, 1, 7))
    shapes = dict(query=[batch, heads, *lengths, d], key=[batch, heads, *lengths, d],
                  value=[batch, heads, *lengths, e],
                  attn=[batch, heads, *lengths, math.prod(kernel) + n])
    if not any(causal) and dice.random() < 0.6:
        shapes["rpb"] = [heads, *(2 * k - 1 for k in kernel)]
    if n:
        shapes |= dict(additional_keys=[batch, heads, n, d], additional_values=[batch, heads, n, e])
    layouts = ("plain", "permuted", "sliced", "expanded")
    operands = {name: laid_out(shape, dice.choice(layouts), dice, dtype) for name, shape in shapes.items()}
    incoming = [laid_out(shapes["attn"], dice.choice(layouts), dice, dtype),
                laid_out(shapes["value"], dice.choice(layouts), dice, dtype)]

    def run(qk, av, dtype):
        x = {name: view(stored.to(dtype, copy=True)).requires_grad_() for name, (stored, view) in operands.items()}
        attn = qk(x["query"], x["key"], **options, additional_keys=x.get("additional_keys"), rpb=x.get("rpb"))
        out = av(x["attn"], x["value"], **options, additional_values=x.get("additional_values"))
        gradients = torch.autograd.grad([attn, out], list(x.values()),
                                        [view(stored.to(dtype)) for stored, view in incoming])
        return attn, out, dict(zip(x, gradients))
    found, wanted = run(*operators(axes), dtype), run(reference.qk, reference.av, torch.float64)
    forward, backward = BOUNDS[dtype]
    assert found[0].dtype == found[1].dtype == dtype and found[0].shape == wanted[0].shape
    near_filled(found[0], wanted[0], forward)
    near(found[1], wanted[1], forward)
    for name, gradient in wanted[2].items():
        near(found[2][name], gradient, backward)


@pytest.mark.parametrize("causal", [(True, False), (False, True), (True, True)])
def test_empty_slots_are_last_on_each_axis_and_never_read(causal):
    q, k, v = (torch.randn(2, 2, 5, 6, 4) for _ in range(3))
    attn = halcyon.na2d_qk(q, k, (3, 2), is_causal=causal)
    counts = [torch.tensor([len(w) for w in reference.axis_window(n, kernel, causal=c)])
              for n, kernel, c in zip((5, 6), (3, 2), causal)]
    filled = ((torch.arange(3)[:, None] < counts[0][:, None, None, None]) &
              (torch.arange(2) < counts[1][:, None, None]))   # (5, 6, 3, 2) slots, row-major
    assert torch.equal(attn > -math.inf, filled.flatten(-2).expand(attn.shape)) and not filled.all()
    weights = attn.softmax(-1)
    dirty = weights.masked_fill(~filled.flatten(-2), math.nan).requires_grad_()
    out = halcyon.na2d_av(dirty, v, (3, 2), is_causal=causal)
    assert torch.equal(out, halcyon.na2d_av(weights, v, (3, 2), is_causal=causal))
    out.sum().backward()
    assert dirty.grad.isfinite().all() and not dirty.grad[~filled.flatten(-2).expand(attn.shape)].any()


def test_order_of_the_arguments():
    q, k, v, more = (torch.randn(1, 2, n, 4) for n in (9, 9, 9, 3))
    rpb = torch.randn(2, 5)
    attn = halcyon.na1d_qk(q, k, 3, 2, False, more, rpb)
    assert torch.equal(attn, halcyon.na1d_qk(query=q, key=k, kernel_size=3, dilation=2, additional_keys=more, rpb=rpb))
    assert torch.equal(halcyon.na1d_av(attn, v, 3, 2, False, more),
                       halcyon.na1d_av(attn=attn, value=v, kernel_size=[3], dilation=(2,), is_causal=None,
                                       additional_values=more))


def test_no_scale_is_applied_and_operands_are_cast():
    q, k, v = (torch.randn(1, 2, 9, 4) for _ in range(3))
    near(halcyon.na1d_qk(2 * q, k, 3), 2 * halcyon.na1d_qk(q, k, 3), 1e-6)
    attn = halcyon.na1d_qk(q, k, 3)
    assert torch.equal(halcyon.na1d_av(attn.double(), v, 3), halcyon.na1d_av(attn, v, 3))
    low = halcyon.na1d_av(attn, v.bfloat16(), 3)
    assert low.dtype == torch.bfloat16 and torch.equal(low, halcyon.na1d_av(attn.bfloat16(), v.bfloat16(), 3))
    rpb = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    biased = halcyon.na1d_qk(q, k, 3, rpb=rpb)
    assert biased.dtype == torch.float32 and torch.equal(biased, halcyon.na1d_qk(q, k, 3, rpb=rpb.float()))
    biased.sum().backward()
    assert rpb.grad.dtype == torch.float64 and rpb.grad.any()


@pytest.mark.parametrize("name", goldens.CASES["jvp"])
def test_jvp_golden(shared, name):
    config, x = goldens.case(shared, "jvp", name)
    qk, av = operators(config["dims"])
    with forward_ad.dual_level():
        for function, operands, result in ((qk, ("query", "key"), "qk"), (av, ("attn", "value"), "av")):
            duals = [forward_ad.make_dual(x[n], x[n + "_t"]) for n in operands]
            primal, tangent = forward_ad.unpack_dual(function(*duals, config["kernel_size"], config["dilation"]))
            near(primal, x[result], 1e-12)
            near(tangent, x[result + "_t"], 1e-12)


@pytest.mark.parametrize("additional", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_nested(axes, causal, additional):
    """Each component is a problem of its own: other batch, heads, lengths and widths."""
    qk, av = operators(axes)
    options, several = dict(kernel_size=3, dilation=1, is_causal=causal), [(1, 2, 5, 4), (2, 2, 3, 4), (1, 2, 7, 6)]
    q, k, v = ([torch.randn(b, h, *[n] * axes, d) for b, h, n, d in several] for _ in range(3))
    more_k, more_v = ([torch.randn(b, h, 2, d) if additional else None for b, h, _, d in several] for _ in range(2))
    rpb = None if causal else torch.randn(2, *[5] * axes)

    def nest(tensors):
        return None if tensors[0] is None else torch.nested.nested_tensor(tensors)
    attn = qk(nest(q), nest(k), **options, additional_keys=nest(more_k), rpb=rpb)
    assert attn.is_nested and len(attn.unbind()) == 3
    weights = [a.softmax(-1) for a in attn.unbind()]
    out = av(nest(weights), nest(v), **options, additional_values=nest(more_v))
    assert out.is_nested and not out.requires_grad
    for i, (got_attn, got_out) in enumerate(zip(attn.unbind(), out.unbind(), strict=True)):
        assert torch.equal(got_attn, qk(q[i], k[i], **options, additional_keys=more_k[i], rpb=rpb))
        assert torch.equal(got_out, av(weights[i], v[i], **options, additional_values=more_v[i]))
