# SPDX-License-Identifier: Apache-2.0
"""Making modules: on the meta device, in other types, from the same seed; and changing their type afterwards."""

import inspect
import subprocess
import sys

import pytest
import torch
from conftest import BUILD, SOURCE, near
from habits import CASES, gradients, layers, one_thread, right_or_refused, same  # noqa: F401

wide = torch.float64


def filled_with_nan(model):
    """Memory that nobody has written to may hold anything."""
    with torch.no_grad():
        for t in [*model.parameters(), *model.buffers()]:
            t.fill_(float("nan") if t.is_floating_point() else -1)


@pytest.mark.parametrize("name", CASES)
def test_made_on_meta_and_given_memory(name):
    case = CASES[name]
    plain = case.make()
    with torch.device("meta"):
        model = case.build()
    assert all(p.is_meta for p in model.parameters())
    assert [(key, p.shape) for key, p in model.named_parameters()] == [(key, p.shape) for key, p in
                                                                       plain.named_parameters()]
    model = model.double().to_empty(device="cpu")
    filled_with_nan(model)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(case.run(model), case.run(plain))
    same(gradients(model, case.run), gradients(plain, case.run), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_made_on_meta_and_given_tensors(name):
    case = CASES[name]
    plain = case.make()
    with torch.device("meta"):
        model = case.build()
    state = plain.state_dict()
    model.load_state_dict(state, assign=True)
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    assert all(p.data_ptr() == state[key].data_ptr() for key, p in model.named_parameters())
    assert torch.equal(case.run(model), case.run(plain))


@pytest.mark.parametrize("name", CASES)
def test_loaded_by_assignment(name):
    """The tensors of the file become the parameters, in their own type."""
    case = CASES[name]
    plain, model = case.make(), case.make(torch.float32, seed=7)
    model.load_state_dict(plain.state_dict(), assign=True)
    assert all(p.dtype == wide for p in model.parameters())
    assert torch.equal(case.run(model), case.run(plain))
    same(gradients(model, case.run), gradients(plain, case.run), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_on_meta_shapes_are_computed_without_numbers(name):
    """A forward on meta tensors: the shape and type, or an error that names the operator."""
    case = CASES[name]
    model = case.make().to("meta")
    args, kwargs = case.given(wide)
    args, kwargs = torch.utils._pytree.tree_map(lambda t: t.to("meta") if hasattr(t, "to") else t, (args, kwargs))

    def compute():
        y = model(*args, **kwargs)
        return torch.cat(y, -1) if isinstance(y, tuple) else y

    def check(y):
        expected = case.run(case.make())
        assert y.is_meta and y.shape == expected.shape and y.dtype == expected.dtype

    right_or_refused(compute, check, ("meta", "halcyon"))


@pytest.mark.parametrize("name", CASES)
def test_made_in_double(name):
    case = CASES[name]
    torch.manual_seed(1)
    single = case.build()
    torch.set_default_dtype(wide)
    try:
        torch.manual_seed(1)
        model = case.build()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(p.dtype == wide for p in model.parameters())
    plain = case.make()
    model.load_state_dict(plain.state_dict())
    near(case.run(model), case.run(plain), 1e-6)  # tables may be of more digits
    same(gradients(model, case.run), gradients(plain, case.run), 1e-5)
    assert single.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
@pytest.mark.parametrize("name", CASES)
def test_lower_precision(name, dtype, bound):
    case = CASES[name]
    expected = case.run(case.make())

    def compute():
        model = case.make().bfloat16() if dtype == torch.bfloat16 else case.make().half()
        y = case.run(model, dtype)
        grads = gradients(model, lambda m: case.run(m, dtype))
        assert y.dtype == dtype and all(g.isfinite().all() for g in grads.values())
        return y

    if dtype == torch.bfloat16:
        near(compute(), expected, bound)
    else:
        right_or_refused(compute, lambda y: near(y, expected, bound), ("half", "float16", "halcyon"))


@pytest.mark.parametrize("way", ["default", "overwrite", "swap"])
@pytest.mark.parametrize("name", CASES)
def test_another_type_under_torchs_switches(name, way):
    """Parameters keep their tensors, are replaced, or swapped; the forward uses what is there."""
    case = CASES[name]
    model, expected = case.make(torch.float32), case.make(torch.float32)
    before = list(model.parameters())
    kept = {key: p.detach().double() for key, p in expected.named_parameters()}
    future = torch.__future__
    future.set_overwrite_module_params_on_conversion(way == "overwrite")
    future.set_swap_module_params_on_conversion(way == "swap")
    try:
        model.double()
    finally:
        future.set_overwrite_module_params_on_conversion(False)
        future.set_swap_module_params_on_conversion(False)
    assert all(p.dtype == wide for p in model.parameters())
    assert all((p is q) == (way != "overwrite") for p, q in zip(before, model.parameters()))
    plain = case.make()
    with torch.no_grad():
        for key, p in plain.named_parameters():
            p.copy_(kept[key])
    near(case.run(model), case.run(plain), 1e-6)
    same(gradients(model, case.run), gradients(plain, case.run), 1e-5)
    model.load_state_dict(case.make(seed=7).state_dict())
    near(case.run(model), case.run(case.make(seed=7)), 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_loading_with_swapped_tensors(name):
    case = CASES[name]
    model = case.make()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict(case.make(seed=7).state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    near(case.run(model), case.run(case.make(seed=7)), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_round_trip_through_another_type_and_layout(name):
    case = CASES[name]
    model = case.make()
    before = case.run(model)
    near(case.run(model.float().double()), before, 1e-5)
    near(case.run(model.to(memory_format=torch.channels_last)), case.run(model), 1e-12)
    assert model.cpu() is model and model.type(wide) is model


def test_skip_init():
    """It needs a class that takes a device: ours say so in torch's words, the layers inside follow torch's."""
    for name, arguments in (("SelfAttention", (8, 2)), ("HealDA", ())):
        cls = type(CASES[name].build())
        if "device" in inspect.signature(cls).parameters:
            assert all(p.device.type == "cpu" for p in torch.nn.utils.skip_init(cls, *arguments).parameters())
        else:
            with pytest.raises(RuntimeError, match="device"):
                torch.nn.utils.skip_init(cls, *arguments)


@pytest.mark.parametrize("name", CASES)
def test_the_seed_makes_the_weights(name):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(CASES[name].build().state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    drawn = [key for key, value in states[0].items() if value.any()]  # adaLN begins at zero
    assert not drawn or any(not torch.equal(states[0][key], states[2][key]) for key in drawn)


def test_models_made_in_several_threads_at_once():
    """A process of its own: what one thread left behind would be in every later model of this one."""
    code = ("import threading, torch, halcyon\n"
            "from habits import TINY\n"
            "made = []\n"
            "def work():\n"
            "    made.extend(halcyon.HealDA(**TINY) for _ in range(5))\n"
            "threads = [threading.Thread(target=work) for _ in range(3)]\n"
            "[t.start() for t in threads]\n"
            "[t.join() for t in threads]\n"
            "assert len(made) == 15\n"
            "for model in made:\n"
            "    for name, p in model.named_parameters():\n"
            "        assert p.isfinite().all() and p.abs().max() < 10, name\n"
            "        if name.startswith('obs_tokenizer.cond_mlp.0'):\n"
            "            assert p.std() > 0.01, name\n"
            "weights = []\n"
            "for _ in range(2):\n"
            "    torch.manual_seed(0)\n"
            "    weights.append(halcyon.SelfAttention(8, 2).state_dict())\n"
            "assert all(torch.equal(w, weights[1][key]) for key, w in weights[0].items()), 'another draw of one seed'\n")
    path = f"{BUILD / 'python'}:{SOURCE / 'tests' / 'python'}"
    done = subprocess.run([sys.executable, "-c", code], timeout=100, env={"PYTHONPATH": path}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_making_a_module_draws_from_torchs_generator_only():
    torch.manual_seed(3)
    with torch.random.fork_rng():
        CASES["VideoDiT"].build()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("name", CASES)
def test_reset_parameters_and_apply(name):
    """model.apply(init): every layer is visited and its new weights are used."""
    case = CASES[name]
    model, plain = case.make(), case.make()
    before, visited = case.run(model), []

    def init(m):
        visited.append(m)
        if isinstance(m, torch.nn.Linear):
            torch.nn.init.constant_(m.weight, 0.1)

    model.apply(init)
    assert visited == list(model.modules())[::-1] or set(visited) == set(model.modules())
    with torch.no_grad():
        for layer in layers(plain).values():
            layer.weight.fill_(0.1)
    near(case.run(model), case.run(plain), 1e-12)
    assert not layers(model) or not torch.allclose(case.run(model), before)
    for layer in layers(model).values():
        layer.reset_parameters()
    assert not layers(model) or not torch.allclose(case.run(model), case.run(plain))
