# SPDX-License-Identifier: Apache-2.0
"""Tied weights, copies and pickles: what a user added or tied is in the copy, and nothing is shared by accident."""

import copy
import io
import pickle

import pytest
import torch
from conftest import near
from habits import CASES, gradients, layers, loss, one_thread  # noqa: F401

wide = torch.float64


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "torch.save": saved}
FIRST, SECOND = "blocks.0.attention.attn_op.qkv", "blocks.1.attention.attn_op.qkv"


class Adapter(torch.nn.Module):
    """At the top of this file, so that pickle finds it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.scale = inner, torch.nn.Parameter(torch.tensor(1.3, dtype=wide))

    def forward(self, x):
        return self.scale * self.inner(x)


def shift(module, args, y):
    return y + 1


def tied():
    model = CASES["VideoDiT"].make()
    model.get_submodule(SECOND).weight = model.get_submodule(FIRST).weight
    return model


def equal(case, one, other):
    return torch.equal(case.run(one), case.run(other))


def test_gradients_of_tied_weights_add_up():
    case = CASES["VideoDiT"]
    model, plain = tied(), case.make()
    with torch.no_grad():
        plain.get_submodule(SECOND).weight.copy_(plain.get_submodule(FIRST).weight)
    assert equal(case, model, plain)
    apart = gradients(plain, case.run)
    found = gradients(model, case.run)
    assert SECOND + ".weight" not in found and len(list(model.parameters())) == len(list(plain.parameters())) - 1
    near(found[FIRST + ".weight"], apart[FIRST + ".weight"] + apart[SECOND + ".weight"], 1e-11)
    before = case.run(model)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert model.get_submodule(SECOND).weight is model.get_submodule(FIRST).weight
    assert not torch.allclose(case.run(model), before)


def test_the_state_of_tied_weights():
    case, model = CASES["VideoDiT"], tied()
    state = model.state_dict()
    assert FIRST + ".weight" in state and SECOND + ".weight" in state
    assert state[FIRST + ".weight"].data_ptr() == state[SECOND + ".weight"].data_ptr()
    plain = case.make(seed=7)
    plain.load_state_dict(state)
    assert equal(case, plain, model)
    again = tied()
    again.load_state_dict({key: 2 * value for key, value in state.items()})
    assert again.get_submodule(SECOND).weight is again.get_submodule(FIRST).weight


@pytest.mark.parametrize("way", WAYS)
def test_copies_keep_the_tie(way):
    case, model = CASES["VideoDiT"], tied()
    other = WAYS[way](model)
    assert other.get_submodule(SECOND).weight is other.get_submodule(FIRST).weight
    assert other.get_submodule(FIRST).weight is not model.get_submodule(FIRST).weight
    assert equal(case, other, model)
    with torch.no_grad():
        other.get_submodule(FIRST).weight.mul_(2)
    assert not torch.allclose(case.run(other), case.run(model))
    near(gradients(WAYS[way](model), case.run)[FIRST + ".weight"], gradients(model, case.run)[FIRST + ".weight"], 1e-12)


def test_one_module_at_two_places():
    """The same attention in both blocks: one set of weights, called twice."""
    case, model, calls = CASES["VideoDiT"], CASES["VideoDiT"].make(), []
    model.blocks[1].attention = model.blocks[0].attention
    model.blocks[0].attention.register_forward_hook(lambda *a: calls.append(1))
    case.run(model)
    assert len(calls) == 2
    del model.blocks[0].attention._forward_hooks[next(iter(model.blocks[0].attention._forward_hooks))]
    other = copy.deepcopy(model)
    assert other.blocks[1].attention is other.blocks[0].attention and equal(case, other, model)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_copies_with_additions(name, way):
    case = CASES[name]
    model = case.make()
    model.register_buffer("mean", torch.arange(3.0))
    model.register_buffer("passing", torch.ones(2), persistent=False)
    model.register_parameter("extra", torch.nn.Parameter(torch.ones(2)))
    model.add_module("head", torch.nn.Linear(3, 3))
    model.note = {"trained on": 2013}
    model.register_forward_hook(shift) if name != "AdaLNModulation" else None
    for i, p in enumerate(model.parameters()):
        p.requires_grad_(i % 2 == 0)
    for i, m in enumerate(model.modules()):
        m.training = i % 3 == 0
    expected = case.run(model)
    other = WAYS[way](model)
    assert type(other) is type(model) and torch.equal(case.run(other), expected)
    assert other.note == model.note and other.note is not model.note
    assert torch.equal(other.mean, model.mean) and "passing" not in other.state_dict() and other.passing.sum() == 2
    assert torch.equal(other.head.weight, model.head.weight) and other.head.weight is not model.head.weight
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [m.training for m in other.modules()] == [m.training for m in model.modules()]
    assert list(other.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert torch.equal(case.run(model), expected) and not torch.equal(case.run(other), expected)


@pytest.mark.parametrize("way", WAYS)
def test_copies_with_adapters_and_hooks_inside(way):
    case = CASES["HealDA"]
    model = case.make()
    for key in list(layers(model)):
        path, _, name = key.rpartition(".")
        owner = model.get_submodule(path)
        setattr(owner, name, Adapter(getattr(owner, name)))
    model.get_submodule("dit.blocks.1.linear.layers.1").register_forward_hook(shift)
    expected, other = case.run(model), WAYS[way](model)
    assert not torch.allclose(expected, case.run(case.make()))
    assert torch.equal(case.run(other), expected) and len(layers(other, Adapter)) == len(layers(case.build()))
    loss(case.run(other)).backward()
    assert all(a.scale.grad is not None for a in layers(other, Adapter).values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_copies_of_mixed_types(name, way):
    """One half in float32: each tensor keeps its own type."""
    model = CASES[name].make(torch.float32)
    for i, p in enumerate(model.parameters()):
        p.data = p.data.to([torch.float32, torch.bfloat16, wide][i % 3])
    other = WAYS[way](model)
    for (key, p), (_, q) in zip(model.named_parameters(), other.named_parameters()):
        assert p.dtype == q.dtype and torch.equal(p, q), key


def test_an_inner_part_copied_alone():
    """A block of a model is a module like any other."""
    case = CASES["VideoDiT"]
    model, other = case.make(), case.make(seed=7)
    before = case.run(model)
    other.blocks = copy.deepcopy(model.blocks)
    other.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("blocks")},
                          strict=False)
    assert equal(case, other, model)
    loss(case.run(other)).backward()
    assert all(p.grad is None for p in model.parameters()) and torch.equal(case.run(model), before)


def test_a_shallow_copy_shares_its_weights():
    case, model = CASES["SelfAttention"], CASES["SelfAttention"].make()
    other = copy.copy(model)
    assert other is not model and all(p is q for p, q in zip(model.parameters(), other.parameters()))
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert equal(case, other, model)


@pytest.mark.parametrize("name", CASES)
def test_a_copy_after_training_and_after_use(name):
    """Nothing that a forward or backward left behind gets in the way."""
    case = CASES[name]
    model = case.make()
    loss(case.run(model)).backward()
    y = case.run(model)
    for way in WAYS.values():
        assert torch.equal(case.run(way(model)), y)
