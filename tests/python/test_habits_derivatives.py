# SPDX-License-Identifier: Apache-2.0
"""gradcheck of whole modules in double, with all their parameters, and gradients of gradients."""

import pytest
import torch
from conftest import near
from habits import CASES, gradients, joined, loss, one_thread, right_or_refused  # noqa: F401
from torch.autograd import gradcheck
from torch.func import functional_call

wide = torch.float64


def of_everything(name):
    """The module as a function of every tensor of floats that it takes and of every parameter."""
    case = CASES[name]
    model = case.make().train()
    args, kwargs = case.given(wide)
    learned = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor) and a.dtype == wide]
    keys = list(dict(model.named_parameters()))

    def function(*given):
        mine = list(args)
        for i, x in zip(learned, given):
            mine[i] = x
        return joined(functional_call(model, dict(zip(keys, given[len(learned):])), tuple(mine), kwargs))

    tensors = [args[i] for i in learned] + [p.detach() for p in model.parameters()]
    return function, [t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name):
    function, tensors = of_everything(name)
    assert gradcheck(function, tensors, fast_mode=name.startswith(("VideoDiT", "HealDA")), atol=1e-6, rtol=1e-4)


def test_gradcheck_of_a_whole_block_element_by_element():
    """Every parameter, every element; but the sum of the outputs only, so that it is quick."""
    function, tensors = of_everything("VideoDiTBlock")
    assert gradcheck(lambda *given: loss(function(*given)), tensors, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_gradients(name):
    """create_graph: right against finite differences of the first gradient along one direction, or refused."""
    function, tensors = of_everything(name)
    along = [torch.linspace(-1, 1, t.numel(), dtype=wide).view(t.shape) for t in tensors]
    step = 1e-5

    def first(given, **options):
        return torch.autograd.grad(loss(function(*given)), given, materialize_grads=True, **options)

    def compute():
        slope = sum((g * v).sum() for g, v in zip(first(tensors, create_graph=True), along))
        return torch.autograd.grad(slope, tensors, materialize_grads=True)

    def check(found):
        up, down = (first([(t + sign * step * v).detach().requires_grad_() for t, v in zip(tensors, along)])
                    for sign in (1, -1))
        scale = max(one.abs().max().item() for one in found)
        for one, a, b in zip(found, up, down):
            assert (one - (a - b) / (2 * step)).abs().max().item() <= 1e-5 * scale

    right_or_refused(compute, check, ("halcyon", "aten::", "create_graph", "double backward", "twice",
                                      "second derivative"))


@pytest.mark.parametrize("name", CASES)
def test_the_graph_can_be_kept_and_used_twice(name):
    case = CASES[name]
    model = case.make()
    once = gradients(model, case.run)
    model.zero_grad()
    value = loss(case.run(model))
    value.backward(retain_graph=True)
    value.backward()
    for key, p in model.named_parameters():
        near(p.grad, 2 * once[key], 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_anomaly_mode_gives_the_same(name):
    case = CASES[name]
    once = gradients(case.make(), case.run)
    with torch.autograd.set_detect_anomaly(True):
        again = gradients(case.make(), case.run)
    for key in once:
        assert torch.equal(once[key], again[key])


@pytest.mark.parametrize("name", CASES)
def test_a_weight_changed_between_forward_and_backward(name):
    """As torch: an error, or the gradient of the weights that the forward saw."""
    case = CASES[name]
    model = case.make()
    expected = gradients(model, case.run)
    model.zero_grad()
    value = loss(case.run(model))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(-2)

    def compute():
        value.backward()
        return {key: p.grad for key, p in model.named_parameters()}

    def check(found):
        for key, g in found.items():
            near(g, expected[key], 1e-10)

    right_or_refused(compute, check, ("modified by an inplace operation",))
