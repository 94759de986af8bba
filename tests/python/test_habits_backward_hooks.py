# SPDX-License-Identifier: Apache-2.0
"""Backward hooks on every inner module, and hooks on the parameters themselves: they run, see the right gradients and
change what flows on."""

import pytest
import torch
from conftest import near
from habits import CASES, callable_modules, gradients, layers, loss, one_thread, same  # noqa: F401
from torch.nn.modules import module as all_modules


def with_gradients(case):
    """The arguments with tensors that need gradients, as full backward hooks ask for."""
    def ready(t):
        return t.requires_grad_() if isinstance(t, torch.Tensor) and t.is_floating_point() else t

    args, kwargs = case.given(torch.float64)
    return tuple(ready(a) for a in args), {k: ready(v) for k, v in kwargs.items()}


def needs_gradient(y):
    return any(isinstance(t, torch.Tensor) and t.requires_grad for t in torch.utils._pytree.tree_leaves(y))


def run_with_gradients(case, model):
    args, kwargs = with_gradients(case)
    y = model(*args, **kwargs)
    return torch.cat(y, -1) if isinstance(y, tuple) else y


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_backward_hooks_on_every_inner_module_run(name, train):
    case = CASES[name]
    model = case.make().train(train)
    expected = gradients(model, lambda m: run_with_gradients(case, m))
    inner, full, pre, reached = callable_modules(model), [], [], set()
    for key, m in inner.items():
        m.register_forward_hook(lambda m, args, y, key=key: reached.add(key) if needs_gradient(y) else None)
        m.register_full_backward_hook(lambda m, gin, gout, key=key: full.append(key))
        m.register_full_backward_pre_hook(lambda m, gout, key=key: pre.append(key))
    found = gradients(model, lambda m: run_with_gradients(case, m))
    assert sorted(set(pre)) == sorted(set(full)) == sorted(reached)
    assert {key for key, m in inner.items() if list(m.parameters())} <= reached
    same(found, expected, 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_a_weight_is_that_of_what_the_hooks_saw(name):
    case = CASES[name]
    model, x, g = case.make(), {}, {}
    for key, m in layers(model).items():
        m.register_forward_hook(lambda m, args, y, key=key: x.update({key: args[0].detach().flatten(0, -2)}))
        m.register_full_backward_hook(lambda m, gin, gout, key=key: g.update({key: gout[0].flatten(0, -2)}))
    found = gradients(model, lambda m: run_with_gradients(case, m))
    for key in layers(model):
        near(found[key + ".weight"], g[key].mT @ x[key], 1e-10)
        if key + ".bias" in found:
            near(found[key + ".bias"], g[key].sum(0), 1e-10)


@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention", "PixelCrossAttention", "VideoDiTBlock",
                                  "HealDA"])
def test_a_backward_hook_that_changes_gradients_changes_them_upstream(name):
    """Twice the gradient of a Linear's output is twice its weight's gradient; no gradient is lost."""
    case = CASES[name]
    expected = gradients(case.make(), lambda m: run_with_gradients(case, m))
    for key in layers(case.make()):
        model = case.make()
        model.get_submodule(key).register_full_backward_pre_hook(lambda m, gout: (2 * gout[0],))
        found = gradients(model, lambda m: run_with_gradients(case, m))
        assert found.keys() == expected.keys()
        near(found[key + ".weight"], 2 * expected[key + ".weight"], 1e-10)


def test_a_hook_that_stops_the_gradient_of_an_input():
    case = CASES["SelfAttention"]
    model = case.make()
    model.get_submodule("attn_op.proj").register_full_backward_hook(lambda m, gin, gout: (torch.zeros_like(gin[0]),))
    found = gradients(model, lambda m: run_with_gradients(case, m))
    assert found["attn_op.proj.weight"].any() and not found["attn_op.qkv.weight"].any()


@pytest.mark.parametrize("name", CASES)
def test_backward_hooks_on_all_modules_of_the_process(name):
    case = CASES[name]
    model, full, pre = case.make(), set(), set()
    learned = {m for m in callable_modules(model).values() if list(m.parameters())}
    handles = [all_modules.register_module_full_backward_hook(lambda m, gin, gout: full.add(m)),
               all_modules.register_module_full_backward_pre_hook(lambda m, gout: pre.add(m))]
    try:
        loss(run_with_gradients(case, model)).backward()
    finally:
        [handle.remove() for handle in handles]
    assert learned <= full and full == pre


@pytest.mark.parametrize("name", CASES)
def test_hooks_on_parameters(name):
    case = CASES[name]
    expected, model = gradients(case.make(), case.run), case.make()
    order = []
    for key, p in model.named_parameters():
        p.register_hook(lambda g, key=key: 3 * g)
        p.register_post_accumulate_grad_hook(lambda p, key=key: order.append(key))
    found = gradients(model, case.run)
    assert sorted(order) == sorted(expected)
    same(found, {key: 3 * g for key, g in expected.items()}, 1e-11)


def test_optimizer_in_the_backward():
    """The step of each parameter in its own hook, its gradient freed at once: as one SGD step afterwards."""
    case = CASES["HealDA"]
    model, plain = case.make(), case.make()
    optimizers = {p: torch.optim.SGD([p], lr=0.01) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    loss(case.run(model)).backward()
    assert all(p.grad is None for p in model.parameters())
    loss(case.run(plain)).backward()
    torch.optim.SGD(plain.parameters(), lr=0.01).step()
    same(dict(model.named_parameters()), dict(plain.named_parameters()), 1e-12)


def test_hooks_on_an_intermediate_tensor():
    """retain_grad and a tensor hook on what a forward hook hands out."""
    case, kept = CASES["VideoDiTBlock"], {}

    def keep(m, args, y):
        y.retain_grad()
        kept["y"] = y

    model = case.make()
    model.get_submodule("linear.layers.0").register_forward_hook(keep)
    found = gradients(model, case.run)
    near(kept["y"].grad.flatten(0, -2).sum(0), found["linear.layers.0.bias"], 1e-10)
