# SPDX-License-Identifier: Apache-2.0
"""torch.compile of the modules in one graph: outputs and gradients as without it, at any number of observations."""

import pytest
import torch
from conftest import near
from habits import (CASES, TINY, Case, callable_modules, gradients, healda_inputs, layers, loss,  # noqa: F401
                    numbers, one_thread, same)
from references import randomise

import halcyon

wide = torch.float64
COMPILED = CASES | {"HealDA": Case(lambda: halcyon.HealDA(**(TINY | dict(num_layers=1))), CASES["HealDA"].given)}
WITHOUT_OBSERVATIONS = ["AdaLNModulation", "SelfAttention", "SelfAttention LayerNorm", "SpatialSelfAttention",
                        "TemporalAttention", "TemporalAttention softmax", "EDMConditionEmbedder",
                        "HEALPixPatchTokenizer", "HEALPixPatchDetokenizer"]


@pytest.fixture(autouse=True)
def anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model, backend="aot_eager", **options):
    return torch.compile(model, backend=backend, fullgraph=True, **options)


def assert_as_eager(case):
    model = case.make()
    fast = compiled(model)
    near(case.run(fast), case.run(model), 1e-10)
    same(gradients(model, lambda m: case.run(fast)), gradients(model, case.run), 1e-10)
    with torch.no_grad():
        near(case.run(fast), case.run(model), 1e-10)


@pytest.mark.parametrize("name", [name for name in CASES if name in WITHOUT_OBSERVATIONS])
def test_in_one_graph(name):
    assert_as_eager(CASES[name])


@pytest.mark.parametrize("name", ["PixelCrossAttention", "ObsTokenizerFiLM", "ObsTokenizerFiLM unfused", "VideoDiTBlock",
                                  "VideoDiT", "HealDA"])
def test_in_one_graph_with_observations(name):
    assert_as_eager(COMPILED[name])


def counted(function):
    """A backend that counts the graphs it is given."""
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    return torch.compile(function, backend=backend, fullgraph=True), graphs


def test_other_numbers_of_observations():
    """A few graphs serve all numbers; zero observations may be one of its own."""
    model = COMPILED["HealDA"].make()
    fast, graphs = counted(model)
    for n in (20, 31, 7, 0, 12):
        given = healda_inputs(observations=n)
        near(fast(**given), model(**given), 1e-11)
        same(gradients(model, lambda m: fast(**given)), gradients(model, lambda m: m(**given)), 1e-10)
    assert len(graphs) <= 6


@pytest.mark.parametrize("name", ["SelfAttention", "TemporalAttention"])
def test_other_sizes(name):
    case, shapes = CASES[name], {"SelfAttention": [(2, 5, 8), (3, 7, 8), (1, 4, 8)],
                                 "TemporalAttention": [(1, 3, 2, 8), (2, 3, 5, 8), (1, 3, 7, 8)]}
    model = case.make()
    fast = compiled(model, dynamic=True)
    args, _ = case.given(wide)
    for shape in shapes[name]:
        x = numbers(*shape)
        near(fast(x, *args[1:]), model(x, *args[1:]), 1e-11)


def test_weights_changed_after_compiling_are_seen():
    case = CASES["VideoDiTBlock"]
    model = case.make()
    fast, graphs = counted(model)
    case.run(fast)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(case.run(fast)).backward()
        optimizer.step()
        near(case.run(fast), case.run(model), 1e-11)
    model.load_state_dict(case.make(seed=7).state_dict())
    near(case.run(fast), case.run(model), 1e-11)
    assert len(graphs) == 1


def test_hooks_and_adapters_in_compiled_models():
    case = CASES["VideoDiTBlock"]
    model = case.make()
    for layer in layers(model).values():
        layer.register_forward_hook(lambda m, args, y: y + (2 * y).sin())
    fast = compiled(model)
    assert not torch.allclose(case.run(model), case.run(case.make()))
    near(case.run(fast), case.run(model), 1e-11)
    same(gradients(model, lambda m: case.run(fast)), gradients(model, case.run), 1e-10)


def test_modes_of_training_make_graphs_of_their_own():
    model = randomise(halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5, mlp_drop_rate=0.5, drop_path=0.5)).double()
    fast = compiled(model)
    h, c = numbers(8, 1, 4, 8), numbers(8, 5, seed=1)
    near(fast.eval()(h, c), model.eval()(h, c), 1e-11)
    first, second = fast.train()(h, c), fast.train()(h, c)
    assert not torch.equal(first, second)
    near(fast.eval()(h, c), model.eval()(h, c), 1e-11)


def test_an_inner_part_compiled_in_place():
    """block.compile() leaves the model eager around it."""
    case = CASES["HealDA"]
    model, calls = case.make(), []
    expected, slopes = case.run(model), gradients(model, case.run)

    def backend(module, inputs):
        calls.append(1)
        return module.forward

    for block in model.dit.blocks:
        block.compile(backend=backend, fullgraph=True)
    near(case.run(model), expected, 1e-11)
    same(gradients(model, case.run), slopes, 1e-10)
    assert calls


def test_the_state_of_a_compiled_model():
    case = CASES["SelfAttention"]
    model = case.make()
    fast = compiled(model)
    assert list(fast.state_dict()) == ["_orig_mod." + key for key in model.state_dict()]
    assert {k for k in callable_modules(model)} == {k for k in callable_modules(fast._orig_mod)}


def test_autocast_inside_a_graph():
    case = CASES["VideoDiTBlock"]
    model = case.make(torch.float32)
    fast = compiled(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = case.run(model, torch.float32)
        near(case.run(fast, torch.float32), expected, 2e-2)
    near(case.run(fast, torch.float32), case.run(model, torch.float32), 1e-5)


def test_checkpointed_blocks_in_a_graph():
    case = CASES["VideoDiTBlock"]
    model = case.make()
    args, kwargs = case.given(wide)

    def run(*args):
        return torch.utils.checkpoint.checkpoint(model, *args, use_reentrant=False, **kwargs)

    fast = torch.compile(run, backend="aot_eager", fullgraph=True)
    same(gradients(model, lambda m: fast(*args)), gradients(model, case.run), 1e-10)


@pytest.mark.parametrize("name", ["VideoDiTBlock", "HealDA"])
def test_inductor(name):
    """The compiler that users get; the others of this file stop before code is made."""
    case = COMPILED[name]
    model = case.make(torch.float32)
    fast = compiled(model, "inductor")
    near(case.run(fast, torch.float32), case.run(model, torch.float32), 1e-4)
    same(gradients(model, lambda m: case.run(fast, torch.float32)),
         gradients(model, lambda m: case.run(m, torch.float32)), 1e-4)
