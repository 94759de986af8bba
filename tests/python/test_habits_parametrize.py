# SPDX-License-Identifier: Apache-2.0
"""Parametrizations, weight norm and spectral norm: the forward is that of a plain model with the effective weights, and
gradients reach what the weights are made of."""

import warnings

import pytest
import torch
from conftest import near
from habits import CASES, WHOLE, gradients, layers, leaves, loss, one_thread  # noqa: F401
from torch.nn.utils import parametrizations, parametrize

wide = torch.float64
LINEARS = [(name, key) for name in CASES if name != "VideoDiT" for key in sorted(layers(CASES[name].build()))]
PARAMETERS = [(name, key) for name in ("VideoDiTBlock", "HealDA") for key, _ in CASES[name].build().named_parameters()]


class Bent(torch.nn.Module):
    """The weight is a curve of the parameter."""

    def forward(self, x):
        return x + 0.5 * (3 * x).sin()


def effective(name, model):
    """A plain model with the weights that the layers of this one show now."""
    plain = CASES[name].make(seed=9)
    with torch.no_grad():
        for key in leaves(plain):
            for part, p in plain.get_submodule(key).named_parameters(recurse=False):
                p.copy_(getattr(model.get_submodule(key), part))
    return plain


@pytest.mark.parametrize("name, key", PARAMETERS)
def test_every_parameter_can_be_parametrized(name, key):
    case = CASES[name]
    model = case.make()
    before = case.run(model).detach()
    path, _, part = key.rpartition(".")
    owner = model.get_submodule(path)
    original = getattr(owner, part).detach().clone()
    parametrize.register_parametrization(owner, part, Bent())
    bent = Bent()(original)
    plain = case.make()
    with torch.no_grad():
        plain.get_parameter(key).copy_(bent)
    found = case.run(model)
    near(found, case.run(plain), 1e-11)
    if not key.endswith("k_norm.bias"):
        assert not torch.allclose(found, before, rtol=1e-9, atol=1e-11)
    loss(found).backward()
    wanted = gradients(plain, case.run)[key] * (1 + 1.5 * (3 * original).cos())
    near(owner.parametrizations[part].original.grad, wanted, 1e-10)
    parametrize.remove_parametrizations(owner, part)
    near(case.run(model), case.run(plain), 1e-11)


@pytest.mark.parametrize("name", WHOLE)
def test_a_training_step_of_a_parametrized_model_is_seen(name):
    """The effective weights of the second forward are those after the step, not kept ones."""
    case = CASES[name]
    model = case.make()
    for layer in layers(model).values():
        parametrize.register_parametrization(layer, "weight", Bent())
    before = case.run(model)
    loss(before).backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    after = case.run(model)
    assert not torch.allclose(after, before)
    near(after, case.run(effective(name, model)), 1e-10)
    with parametrize.cached():
        near(case.run(model), after, 1e-12)


@pytest.mark.parametrize("kind", ["orthogonal", "spectral_norm", "weight_norm"])
@pytest.mark.parametrize("name, key", LINEARS)
def test_parametrizations_of_torch(name, key, kind):
    case = CASES[name]
    model = case.make().eval()
    before = case.run(model)
    layer = model.get_submodule(key)
    getattr(parametrizations, kind)(layer, "weight")
    if kind == "weight_norm":
        with torch.no_grad():
            layer.parametrizations.weight.original0.mul_(1.7)
    model.eval()
    found = case.run(model)
    assert not torch.allclose(found, before, rtol=1e-6)
    if kind == "orthogonal":
        w = layer.weight if layer.weight.shape[0] <= layer.weight.shape[1] else layer.weight.mT
        near(w @ w.mT, torch.eye(len(w), dtype=wide), 1e-9)
    near(found, case.run(effective(name, model).eval()), 1e-10)
    loss(found).backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parametrizations.parameters())


@pytest.mark.parametrize("name, key", LINEARS)
def test_weight_norm_of_old(name, key):
    """It makes the weight anew in a pre-hook of the layer, so that the layer must be called."""
    case = CASES[name]
    model = case.make()
    before, layer = case.run(model), model.get_submodule(key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(layer)
    near(case.run(model), before, 1e-11)
    with torch.no_grad():
        layer.weight_g.mul_(1.7)
    plain = case.make()
    with torch.no_grad():
        plain.get_submodule(key).weight.mul_(1.7)
    found = case.run(model)
    near(found, case.run(plain), 1e-11)
    loss(found).backward()
    v = layer.weight_v.detach()
    length = v.norm(dim=1, keepdim=True)
    near(layer.weight_g.grad, (gradients(plain, case.run)[key + ".weight"] * v / length).sum(1, keepdim=True), 1e-9)
    torch.nn.utils.remove_weight_norm(layer)
    near(case.run(model), case.run(plain), 1e-11)


@pytest.mark.parametrize("name", WHOLE)
def test_spectral_norm_of_old_on_every_linear(name):
    case = CASES[name]
    model = case.make()
    before = case.run(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in layers(model).values():
            torch.nn.utils.spectral_norm(layer, n_power_iterations=50)
    case.run(model.train())
    found = case.run(model.eval())
    assert not torch.allclose(found, before)
    near(found, case.run(effective(name, model)), 1e-9)
    for layer in layers(model).values():
        assert abs(torch.linalg.matrix_norm(layer.weight.detach(), 2).item() - 1) < 0.05


@pytest.mark.parametrize("name", WHOLE)
def test_biases_and_norms_parametrized_together(name):
    case = CASES[name]
    model = case.make()
    for key in leaves(model):
        owner = model.get_submodule(key)
        for part in [part for part, _ in owner.named_parameters(recurse=False)]:
            parametrize.register_parametrization(owner, part, Bent())
    plain = case.make()
    with torch.no_grad():
        for p in plain.parameters():
            p.copy_(Bent()(p))
    near(case.run(model), case.run(plain), 1e-10)


def test_a_parametrized_models_state_is_saved_and_loaded():
    case, models = CASES["HealDA"], []
    for seed in (5, 6):
        model = case.make(seed=seed)
        for layer in layers(model).values():
            parametrize.register_parametrization(layer, "weight", Bent())
        models.append(model)
    assert "dit.blocks.0.cross_attention.k_proj.parametrizations.weight.original" in models[0].state_dict()
    assert not torch.allclose(case.run(models[0]), case.run(models[1]))
    models[1].load_state_dict(models[0].state_dict())
    assert torch.equal(case.run(models[0]), case.run(models[1]))
