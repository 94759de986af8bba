# SPDX-License-Identifier: Apache-2.0
"""torch.func over the modules: right numbers, or an error that names the operator or the transform. Never wrong ones."""

import pytest
import torch
from conftest import near
from habits import CASES, TRANSFORMS, gradients, joined, loss, one_thread, right_or_refused, same  # noqa: F401
from references import randomise
from torch.autograd import forward_ad
from torch.func import functional_call

import halcyon

wide = torch.float64


def of_parameters(case, model):
    """The loss as a function of all parameters."""
    args, kwargs = case.given(wide)
    return lambda given: loss(joined(functional_call(model, given, args, kwargs)))


def of_input(name):
    """The output as a function of the first tensor of floats, and that tensor."""
    case = CASES[name]
    model = case.make()
    args, kwargs = case.given(wide)
    if args:
        return lambda x: joined(model(x, *args[1:], **kwargs)), args[0]
    key = next(iter(kwargs))
    return lambda x: joined(model(**(kwargs | {key: x}))), kwargs[key]


def detached(model):
    return {key: p.detach() for key, p in model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_grad(name):
    case = CASES[name]
    model = case.make()
    expected = gradients(model, case.run)
    outcome = right_or_refused(lambda: torch.func.grad(of_parameters(case, model))(detached(model)),
                               lambda found: same(found, expected, 1e-10))
    assert outcome in ("works", "refused")
    # the module is as before, whatever came
    same(gradients(model, case.run), expected, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_grad_and_value_with_auxiliary_output(name):
    case = CASES[name]
    model, (args, kwargs) = case.make(), case.given(wide)

    def both(given):
        y = joined(functional_call(model, given, args, kwargs))
        return loss(y), y

    def check(found):
        grads, (value, y) = found
        near(y, case.run(model), 1e-12)
        near(value, loss(case.run(model)), 1e-12)
        same(grads, gradients(model, case.run), 1e-10)

    right_or_refused(lambda: torch.func.grad_and_value(both, has_aux=True)(detached(model)), check)


def test_observations_packed_within_a_transform():
    """The packing has no gradient; within grad() it packs, or says that it does not."""
    case = CASES["HealDA"]
    model = case.make()

    def value(given):
        return loss(functional_call(model, given, (), case.given(wide)[1]))

    expected = gradients(model, case.run)
    right_or_refused(lambda: torch.func.grad(value)(detached(model)), lambda found: same(found, expected, 1e-10),
                     (*TRANSFORMS, "prepare_obs_context", "sort_and_pack"))


@pytest.mark.parametrize("name", CASES)
def test_vjp(name):
    function, x = of_input(name)
    y = function(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=wide).view(y.shape)
    leaf = x.clone().requires_grad_()
    expected, = torch.autograd.grad((function(leaf) * weight).sum(), leaf)
    right_or_refused(lambda: torch.func.vjp(function, x)[1](weight)[0], lambda found: near(found, expected, 1e-10))


def slope(function, x, v, step=1e-6):
    with torch.no_grad():
        return (function(x + step * v) - function(x - step * v)) / (2 * step)


@pytest.mark.parametrize("name", CASES)
def test_jvp(name):
    function, x = of_input(name)
    v = torch.linspace(-1, 1, x.numel(), dtype=wide).view(x.shape)

    def check(found):
        near(found[0], function(x), 1e-12)
        near(found[1], slope(function, x, v), 1e-6)

    right_or_refused(lambda: torch.func.jvp(function, (x,), (v,)), check)


@pytest.mark.parametrize("name", CASES)
def test_dual_numbers(name):
    """Forward-mode AD without torch.func. A tangent that is lost without a word would be a wrong number."""
    function, x = of_input(name)
    v = torch.linspace(-1, 1, x.numel(), dtype=wide).view(x.shape)

    def compute():
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent

    def check(found):
        assert found is not None, "the tangent is lost"
        near(found, slope(function, x, v), 1e-6)

    right_or_refused(compute, check)


@pytest.mark.parametrize("name", CASES)
def test_jvp_of_the_parameters(name):
    case = CASES[name]
    model = case.make()
    given = detached(model)
    along = {key: torch.linspace(-1, 1, p.numel(), dtype=wide).view(p.shape) for key, p in given.items()}
    expected = sum((g * along[key]).sum() for key, g in gradients(model, case.run).items())
    right_or_refused(lambda: torch.func.jvp(of_parameters(case, model), (given,), (along,))[1],
                     lambda found: near(found, expected, 1e-9))


@pytest.mark.parametrize("name", CASES)
def test_vmap(name):
    """Several first inputs at once, as a loop over them."""
    function, x = of_input(name)
    many = torch.stack([x, 0.5 * x, x.flip(-1)])
    expected = torch.stack([function(one) for one in many])
    right_or_refused(lambda: torch.func.vmap(function)(many), lambda found: near(found, expected, 1e-11))


def test_vmap_over_a_batch_that_the_module_has_itself():
    """The samples of a batch one by one: as the batch."""
    model = randomise(halcyon.SelfAttention(8, 2)).double()
    x = torch.randn(3, 5, 8, dtype=wide)
    right_or_refused(lambda: torch.func.vmap(lambda one: model(one[None])[0])(x), lambda y: near(y, model(x), 1e-11))


@pytest.mark.parametrize("name", CASES)
def test_ensemble(name):
    """stack_module_state and vmap: three models as one."""
    case = CASES[name]
    models = [case.make(seed=seed) for seed in range(3)]
    expected = torch.stack([case.run(m) for m in models])
    args, kwargs = case.given(wide)
    parameters, buffers = torch.func.stack_module_state(models)
    assert all(p.shape[0] == 3 and p.requires_grad for p in parameters.values())
    base = models[0]

    def one(parameters, buffers):
        return joined(functional_call(base, (parameters, buffers), args, kwargs))

    def check(found):
        near(found, expected, 1e-10)
        loss(found).backward()
        weight = torch.linspace(-1, 1, found.numel(), dtype=wide).view(found.shape)
        for i, m in enumerate(models):
            (case.run(m).sin() * weight[i]).sum().backward()
        same({key: p.grad for key, p in parameters.items()},
             {key: torch.stack([m.get_parameter(key).grad for m in models]) for key in parameters}, 1e-9)

    right_or_refused(lambda: torch.func.vmap(one)(parameters, buffers), check)


@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention", "PixelCrossAttention", "ObsTokenizerFiLM"])
def test_gradients_of_each_sample(name):
    """vmap over grad, as in differential privacy: the gradient of every sample, as a loop gives."""
    case = CASES[name]
    model = case.make()
    args, kwargs = case.given(wide)
    many = torch.stack([args[0], 0.5 * args[0]])

    def one(given, x):
        return loss(joined(functional_call(model, given, (x, *args[1:]), kwargs)))

    expected = []
    for x in many:
        expected.append(gradients(model, lambda m, x=x: joined(m(x, *args[1:], **kwargs))))
    stacked = {key: torch.stack([e[key] for e in expected]) for key in expected[0]}
    right_or_refused(lambda: torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(detached(model), many),
                     lambda found: same(found, stacked, 1e-9))


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention", "ObsTokenizerFiLM", "VideoDiTBlock"])
def test_jacobians(name, transform):
    function, x = of_input(name)
    expected = torch.autograd.functional.jacobian(function, x)
    right_or_refused(lambda: transform(function)(x), lambda found: near(found, expected, 1e-9))


@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention", "ObsTokenizerFiLM"])
def test_hessian_times_vector(name):
    function, x = of_input(name)
    v, step = torch.linspace(-1, 1, x.numel(), dtype=wide).view(x.shape), 1e-5

    def first(x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(loss(function(leaf)), leaf)[0]

    expected = (first(x + step * v) - first(x - step * v)) / (2 * step)
    right_or_refused(lambda: torch.func.jvp(torch.func.grad(lambda x: loss(function(x))), (x,), (v,))[1],
                     lambda found: near(found, expected, 1e-5))
