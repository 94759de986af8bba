# SPDX-License-Identifier: Apache-2.0
"""torch.func.functional_call: the given parameters and buffers take effect, the module's own stay as they are."""

import pytest
import torch
from conftest import near
from habits import CASES, gradients, joined, loss, one_thread, right_or_refused, same  # noqa: F401
from torch.func import functional_call


def call(case, model, tensors, **options):
    args, kwargs = case.given(torch.float64)
    return joined(functional_call(model, tensors, args, kwargs, **options))


@pytest.mark.parametrize("name", CASES)
def test_other_parameters_give_their_own_result_and_gradients(name):
    case = CASES[name]
    model, other = case.make(seed=5), case.make(seed=6)
    own = {key: p.detach().clone() for key, p in model.named_parameters()}
    before = case.run(model).detach()
    given = {key: p.detach().clone().requires_grad_() for key, p in other.named_parameters()}
    found = call(case, model, given)
    assert not torch.allclose(found, before)
    near(found, case.run(other), 1e-12)
    loss(found).backward()
    same({key: p.grad for key, p in given.items()}, gradients(other, case.run), 1e-11)
    assert all(p.grad is None and torch.equal(p, own[key]) for key, p in model.named_parameters())
    assert torch.equal(case.run(model), before)


@pytest.mark.parametrize("name", CASES)
def test_each_parameter_alone_takes_effect(name):
    """One of them is replaced; the result is that of a model with this one in its place."""
    case = CASES[name]
    model, other, mixed = case.make(seed=5), case.make(seed=6), case.make(seed=5)
    plain, dead = case.run(model).detach(), []
    with torch.no_grad():
        for key, p in other.named_parameters():
            found = call(case, model, {key: p})
            own = mixed.get_parameter(key)
            kept = own.clone()
            own.copy_(p)
            near(found, case.run(mixed), 1e-12)
            own.copy_(kept)
            if torch.allclose(found, plain, rtol=1e-9, atol=1e-11) and not key.endswith("k_norm.bias"):
                dead.append(key)  # a bias of all keys is one that softmax cancels
    assert not dead


@pytest.mark.parametrize("name", ["EDMConditionEmbedder", "HEALPixPatchTokenizer", "VideoDiT", "HealDA"])
def test_each_buffer_of_floats_takes_effect(name):
    case = CASES[name]
    model = case.make()
    buffers = {key: b for key, b in model.named_buffers() if b.is_floating_point()}
    if name != "HEALPixPatchTokenizer":
        assert any(key.endswith("freqs") for key in buffers)
    plain, dead = case.run(model), []
    for key, b in buffers.items():
        kept = b.clone()
        found = call(case, model, {key: b * 1.3 + 0.1})
        if torch.allclose(found, plain, rtol=1e-7, atol=1e-10):
            dead.append(key)
        assert torch.equal(model.get_buffer(key), kept)
    assert not dead


def test_strict_names_what_is_missing_and_what_is_unknown():
    case = CASES["SelfAttention"]
    model = case.make()
    whole = dict(model.named_parameters())
    near(call(case, model, whole, strict=True), case.run(model), 1e-12)
    part = {key: p for key, p in whole.items() if key != "attn_op.proj.bias"}
    with pytest.raises(RuntimeError, match="attn_op.proj.bias"):
        call(case, model, part, strict=True)
    with pytest.raises(RuntimeError, match="extra"):
        call(case, model, whole | {"extra": torch.zeros(1)}, strict=True)


def test_tied_weights_are_replaced_together():
    case = CASES["VideoDiT"]
    model = case.make()
    first, second = "blocks.0.attention.attn_op.qkv", "blocks.1.attention.attn_op.qkv"
    model.get_submodule(second).weight = model.get_submodule(first).weight
    weight = 1.5 * model.get_submodule(first).weight.detach()
    other = case.make()
    with torch.no_grad():
        for key in (first, second):
            other.get_submodule(key).weight.copy_(weight)
    near(call(case, model, {first + ".weight": weight}), case.run(other), 1e-12)
    apart = call(case, model, {first + ".weight": weight}, tie_weights=False)
    assert not torch.allclose(apart, case.run(other))


def test_a_failing_call_puts_the_parameters_back():
    case = CASES["SelfAttention"]
    model = case.make()
    before = case.run(model)
    with pytest.raises((ValueError, RuntimeError)):
        call(case, model, {"attn_op.qkv.weight": torch.zeros(3, 3, dtype=torch.float64)})
    assert torch.equal(case.run(model), before)


def test_one_step_of_meta_learning():
    """Gradients through an inner step: loss(w - a * grad(w)) by w, against finite differences."""
    case = CASES["VideoDiTBlock"]
    model = case.make()
    names = ["linear.layers.0.bias", "linear.layers.2.weight"]
    weights = [model.get_parameter(key).detach().clone().requires_grad_() for key in names]

    def outer(*weights):
        inner = torch.autograd.grad(loss(call(case, model, dict(zip(names, weights)))), weights, create_graph=True)
        return loss(call(case, model, {key: w - 0.1 * g for key, w, g in zip(names, weights, inner)}))

    def check(found):
        along, step = [torch.ones_like(w) for w in weights], 1e-6
        ends = [outer(*[(w + sign * step * v).detach().requires_grad_() for w, v in zip(weights, along)])
                for sign in (1, -1)]
        slope = sum((g * v).sum() for g, v in zip(found, along)).item()
        assert abs((ends[0] - ends[1]).item() / (2 * step) - slope) <= 1e-5 * abs(slope)

    right_or_refused(lambda: torch.autograd.grad(outer(*weights), weights), check)
