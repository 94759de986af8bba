# SPDX-License-Identifier: Apache-2.0
"""halcyon.inference of a model to which something was added: hooks, other layers, weights made of others. C++ would not
run these, so they are refused by name; what comes after the callable was made is run or refused, never left out."""

import warnings

import pytest
import torch
from conftest import near
from habits import CASES, callable_modules, layers, one_thread, right_or_refused  # noqa: F401
from torch.nn.modules import module as all_modules
from torch.nn.utils import parametrizations, parametrize, prune

import halcyon

wide = torch.float64
REFUSED = ("inference",)


def make(**options):
    return CASES["HealDA"].make(**options).eval()


def bent(m, args, y):
    return y + (2 * y).sin()


def own_forward(m):
    """Another forward for one module, and the way to take it back."""
    old = m.forward
    m.forward = lambda *args, **kwargs: torch.utils._pytree.tree_map(lambda t: 2 * t, old(*args, **kwargs))
    return lambda: delattr(m, "forward")


ADDED = {
    "forward hook": lambda m: m.register_forward_hook(bent).remove,
    "pre-hook": lambda m: m.register_forward_pre_hook(lambda m, args: None).remove,
    "forward of its own": own_forward,
}


@pytest.mark.parametrize("what", ADDED)
def test_a_hook_on_any_module_is_refused_by_its_name(what):
    model = make()
    for key, m in callable_modules(model).items():
        take_back = ADDED[what](m)
        with pytest.raises(ValueError, match=key.replace(".", r"\.")):
            halcyon.inference(model)
        take_back()
    near(CASES["HealDA"].run(halcyon.inference(model)), CASES["HealDA"].run(model), 1e-6)


def test_a_backward_hook_is_refused_or_has_nothing_to_see():
    model, case = make(), CASES["HealDA"]
    model.get_submodule("dit.blocks.0.linear.layers.0").register_full_backward_hook(lambda m, gin, gout: None)
    right_or_refused(lambda: case.run(halcyon.inference(model)), lambda y: near(y, case.run(make()), 1e-6), REFUSED)


@pytest.mark.parametrize("what", ADDED)
def test_a_hook_that_comes_later_is_run_or_refused(what):
    case = CASES["HealDA"]
    for key in ("dit.blocks.0.linear.layers.0", "dit.blocks.1", "obs_tokenizer.cond_mlp.0", "dit.tokenizer.conv"):
        model = make()
        run = halcyon.inference(model)
        ADDED[what](model.get_submodule(key))
        right_or_refused(lambda: case.run(run), lambda y: near(y, case.run(model), 1e-6), REFUSED)


def test_a_hook_on_the_model_itself_is_run_or_refused():
    model, case = make(), CASES["HealDA"]
    model.register_forward_hook(bent)
    right_or_refused(lambda: case.run(halcyon.inference(model)), lambda y: near(y, case.run(model), 1e-6), REFUSED)


def test_hooks_on_all_modules_of_the_process_are_run_or_refused():
    model, case = make(), CASES["HealDA"]
    run = halcyon.inference(model)
    handle = all_modules.register_module_forward_hook(
        lambda m, args, y: y + (2 * y).sin() if isinstance(m, torch.nn.Linear) else None)
    try:
        expected = case.run(model)
        for compute in (lambda: case.run(run), lambda: case.run(halcyon.inference(model))):
            right_or_refused(compute, lambda y: near(y, expected, 1e-6), REFUSED)
    finally:
        handle.remove()


class Twice(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return 2 * self.inner(*args, **kwargs)


def put(model, key, make_new):
    path, _, name = key.rpartition(".")
    owner = model.get_submodule(path)
    owner._modules[name] = make_new(owner._modules[name])


def test_any_replaced_module_is_refused_by_its_name():
    model = make()
    for key, m in callable_modules(model).items():
        put(model, key, Twice)
        with pytest.raises(ValueError, match=key.replace(".", r"\.")):
            halcyon.inference(model)
        put(model, key, lambda _, m=m: m)


def plain_linear(old):
    new = torch.nn.Linear(old.in_features, old.out_features, old.bias is not None, dtype=wide)
    return new


@pytest.mark.parametrize("key", sorted(layers(make())))
def test_a_plain_linear_is_used_or_refused(key):
    model, case = make(), CASES["HealDA"]
    put(model, key, plain_linear)
    right_or_refused(lambda: case.run(halcyon.inference(model)), lambda y: near(y, case.run(model), 1e-6), REFUSED)


WEIGHTS = {"parametrization": lambda m: parametrize.register_parametrization(m, "weight", Twice(torch.nn.Identity())),
           "spectral norm": parametrizations.spectral_norm, "old weight norm": torch.nn.utils.weight_norm,
           "pruning": lambda m: prune.l1_unstructured(m, "weight", 0.5)}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_made_of_others_are_refused_by_name(what):
    for key in layers(make()):
        model = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            WEIGHTS[what](model.get_submodule(key))
        with pytest.raises(ValueError, match=key.replace(".", r"\.")):
            halcyon.inference(model)


def subclassed(model):
    class Mine(type(model)):
        def forward(self, *args, **kwargs):
            return 2 * super().forward(*args, **kwargs)

    model.__class__ = Mine


STRUCTURES = {
    "fewer blocks": lambda model: model.dit.blocks.pop(1),
    "another activation": lambda model: model.set_submodule("dit.blocks.0.linear.layers.1", torch.nn.ReLU()),
    "exact GELU": lambda model: model.set_submodule("dit.blocks.0.linear.layers.1", torch.nn.GELU()),
    "a bias less": lambda model: setattr(model.dit.blocks[0].linear.layers[0], "bias", None),
    "a bias more": lambda model: setattr(model.dit.blocks[0].cross_attention.k_proj, "bias",
                                         torch.nn.Parameter(torch.ones(4, dtype=wide))),
    "a module more": lambda model: model.add_module("head", torch.nn.Linear(3, 3)),
    "another eps": lambda model: setattr(model.get_submodule("obs_tokenizer.cond_mlp.1"), "eps", 0.5),
    "another eps of a norm of queries": lambda model: setattr(
        model.get_submodule("dit.blocks.0.attention.attn_op.q_norm"), "eps", 0.5),
    "short rows of a table": lambda model: setattr(model.get_submodule("obs_tokenizer.embed_table"), "max_norm", 0.1),
    "a subclass": subclassed,
}


@pytest.mark.parametrize("what", STRUCTURES)
def test_structures_that_were_changed(what):
    """Used or refused, never as before."""
    case, model = CASES["HealDA"], make()
    STRUCTURES[what](model)
    right_or_refused(lambda: case.run(halcyon.inference(model)), lambda y: near(y, case.run(model), 1e-6), REFUSED)
