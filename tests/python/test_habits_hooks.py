# SPDX-License-Identifier: Apache-2.0
"""Forward hooks and pre-hooks on every inner module run, see what the layer computes, and change the output."""

import contextlib

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, callable_modules, healda_inputs, joined, layers, one_thread  # noqa: F401
from torch.nn.modules import module as all_modules

MODES = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad}


def bent(y):
    """Another tensor for every tensor of floats, in a way that no norm takes back."""
    return torch.utils._pytree.tree_map(
        lambda t: t + 0.3 * (2 * t).sin() + 0.1 if isinstance(t, torch.Tensor) and t.is_floating_point() else t, y)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_hooks_on_every_inner_module_run(name, train, mode):
    case = CASES[name]
    model = case.make().train(train)
    inner, before, after = callable_modules(model), [], []
    for key, m in inner.items():
        m.register_forward_pre_hook(lambda m, args, key=key: before.append(key))
        m.register_forward_hook(lambda m, args, y, key=key: after.append(key))
    with MODES[mode]():
        case.run(model)
    assert sorted(set(before)) == sorted(set(after)) == sorted(inner)
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_a_hook_that_changes_an_output_changes_the_models_output(name, mode):
    case = CASES[name]
    model = case.make().eval()
    with MODES[mode]():
        plain, dead = case.run(model), []
        for key, m in callable_modules(model).items():
            handle = m.register_forward_hook(lambda m, args, y: bent(y))
            if torch.allclose(case.run(model), plain, rtol=1e-7, atol=1e-9):
                dead.append(key)
            handle.remove()
            assert torch.equal(case.run(model), plain), f"{key}: the hook acts after it was removed"
    assert not dead


@pytest.mark.parametrize("name", CASES)
def test_a_pre_hook_that_changes_an_input_changes_the_models_output(name):
    case = CASES[name]
    model = case.make().eval()
    plain, dead = case.run(model), []
    for key, m in callable_modules(model).items():
        if isinstance(m, torch.nn.Embedding):
            handle = m.register_forward_pre_hook(lambda m, args: ((args[0] + 1) % m.num_embeddings,))
        else:
            handle = m.register_forward_pre_hook(lambda m, args, kwargs: (bent(args), bent(kwargs)), with_kwargs=True)
        if torch.allclose(case.run(model), plain, rtol=1e-7, atol=1e-9):
            dead.append(key)
        handle.remove()
    assert not dead


@pytest.mark.parametrize("name", CASES)
def test_hooks_that_change_nothing_change_nothing(name):
    """Watching must not switch to other numbers; another path may round otherwise."""
    case = CASES[name]
    model = case.make().eval()
    plain = case.run(model)
    for m in callable_modules(model).values():
        m.register_forward_hook(lambda m, args, y: None)
        m.register_forward_pre_hook(lambda m, args: None)
    near(case.run(model), plain, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_hooks_see_what_the_layer_computes(name):
    case = CASES[name]
    model, seen = case.make().eval(), {}
    formulas = {torch.nn.Linear: lambda m, x: torch.nn.functional.linear(x, m.weight, m.bias),
                torch.nn.Embedding: lambda m, x: m.weight[x.long()],
                torch.nn.LayerNorm: lambda m, x: torch.nn.functional.layer_norm(x, m.normalized_shape, m.weight, m.bias,
                                                                                 m.eps)}
    for kind in formulas:
        for key, m in layers(model, kind).items():
            m.register_forward_hook(lambda m, args, y, key=key, kind=kind: seen.update({key: (kind, m, args[0], y)}))
    case.run(model)
    assert len(seen) == sum(len(layers(model, kind)) for kind in formulas)
    for key, (kind, m, x, y) in seen.items():
        near(y, formulas[kind](m, x), 1e-12)


def linears(name):
    return sorted(layers(CASES[name].build()))


@pytest.mark.parametrize("name, key", [(name, key) for name in CASES if name != "VideoDiT" for key in linears(name)])
def test_a_hook_that_adds_a_vector_is_another_bias(name, key):
    """Numbers, not only a change: an output hook on a Linear against the same model with that bias."""
    case = CASES[name]
    model, other = case.make(), case.make()
    layer = other.get_submodule(key)
    shift = torch.linspace(-1, 1, layer.out_features, dtype=torch.float64)
    model.get_submodule(key).register_forward_hook(lambda m, args, y: y + shift)
    bias = shift if layer.bias is None else layer.bias.detach() + shift
    layer.bias = torch.nn.Parameter(bias)
    near(case.run(model), case.run(other), 1e-11)


@pytest.mark.parametrize("name", WHOLE)
def test_hooks_with_keywords_see_and_change_them(name):
    case = CASES[name]
    model = case.make().eval()
    args, kwargs = case.given(torch.float64)
    seen = {}
    model.register_forward_pre_hook(lambda m, a, k: seen.update(pre=(a, k)), with_kwargs=True)
    model.register_forward_hook(lambda m, a, k, y: seen.update(post=(a, k)), with_kwargs=True)
    plain = model(*args, **kwargs)
    for when in ("pre", "post"):
        assert len(seen[when][0]) == len(args) and seen[when][1].keys() == kwargs.keys()
        assert all(seen[when][1][key] is kwargs[key] for key in kwargs)
    handle = model.register_forward_pre_hook(lambda m, a, k: (bent(a), bent(k)), with_kwargs=True)
    changed = model(*args, **kwargs)
    handle.remove()
    assert not torch.allclose(changed, plain)
    near(changed, model(*bent(args), **bent(kwargs)), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_hooks_on_all_modules_of_the_process(name):
    case = CASES[name]
    model, before, after = case.make().eval(), set(), set()
    plain = case.run(model)
    handles = [all_modules.register_module_forward_pre_hook(lambda m, args: before.add(m)),
               all_modules.register_module_forward_hook(lambda m, args, y: after.add(m))]
    try:
        near(case.run(model), plain, 1e-12)
    finally:
        [handle.remove() for handle in handles]
    expected = set(callable_modules(model).values()) | {model}
    assert expected <= before and before == after
    handle = all_modules.register_module_forward_hook(
        lambda m, args, y: bent(y) if isinstance(m, torch.nn.Linear) else None)
    try:
        changed = case.run(model)
    finally:
        handle.remove()
    if layers(model):
        assert not torch.allclose(changed, plain)
    assert torch.equal(case.run(model), plain)


def test_hooks_run_in_order_and_prepended_ones_first():
    case, order = CASES["SelfAttention"], []
    model = case.make()
    layer = model.get_submodule("attn_op.qkv")
    layer.register_forward_hook(lambda *a: order.append("second"))
    layer.register_forward_hook(lambda *a: order.append("first"), prepend=True)
    case.run(model)
    assert order == ["first", "second"]


def test_a_hook_that_raises_ends_the_forward_and_nothing_else():
    case = CASES["HealDA"]
    model, called = case.make().eval(), []
    plain = case.run(model)
    layer = model.get_submodule("dit.blocks.1.linear.layers.2")
    layer.register_forward_hook(lambda *a: called.append(1), always_call=True)

    def stop(m, args):
        raise KeyError("seen enough")

    handle = layer.register_forward_pre_hook(stop)
    with pytest.raises(KeyError, match="seen enough"):
        case.run(model)
    assert called == [1]
    handle.remove()
    near(case.run(model), plain, 1e-12)


def test_features_of_a_block_are_those_of_the_model():
    """Feature extraction: what a hook takes out of the last block gives the output through the detokenizer."""
    case = CASES["HealDA"]
    model, kept = case.make().eval(), {}
    model.dit.blocks[-1].register_forward_hook(lambda m, args, y: kept.update(h=y.clone()))
    model.dit.detokenizer.register_forward_pre_hook(lambda m, args, kwargs: kept.update(args=args, kwargs=kwargs),
                                                    with_kwargs=True)
    y = case.run(model)
    args = list(kept["args"])
    given = args + list(kept["kwargs"].values())
    assert any(isinstance(t, torch.Tensor) and t.shape == kept["h"].shape and torch.equal(t, kept["h"]) for t in given)
    near(model.dit.detokenizer(*args, **kept["kwargs"]), y, 1e-12)


def test_hooks_see_another_number_of_observations():
    model, rows = CASES["HealDA"].make().eval(), []
    model.get_submodule("obs_tokenizer.cond_mlp.0").register_forward_hook(lambda m, args, y: rows.append(y.shape[0]))
    for n in (5, 0, 31):
        joined(model(**healda_inputs(observations=n)))
    assert rows in ([5, 0, 31], [5, 31])
