# SPDX-License-Identifier: Apache-2.0
"""halcyon.inference(model): the C++ path on the model's own weights, as they are at each call."""

import copy

import pytest
import torch
from conftest import near
from habits import CASES, TINY, healda_inputs, loss, one_thread, right_or_refused  # noqa: F401
from references import randomise

import halcyon

wide = torch.float64
REFUSED = ("inference",)


def make(**options):
    return CASES["HealDA"].make(**options).eval()


@pytest.mark.parametrize("observations", [0, 20, 33])
@pytest.mark.parametrize("dtype, bound", [(wide, 1e-6), (torch.float32, 1e-4)])
def test_it_computes_what_the_model_computes(observations, dtype, bound):
    model, given = make(dtype=dtype), healda_inputs(dtype, batch=2, observations=observations)
    run = halcyon.inference(model)
    y = run(**given)
    assert y.dtype == dtype and not y.requires_grad
    near(y, model(**given), bound)
    near(run(**given), y, 1e-12)
    assert torch.equal(given["x"], healda_inputs(dtype, batch=2, observations=observations)["x"])


def test_the_model_goes_on_as_it_was():
    """It trains after and before; its state, modes and gradients are its own."""
    model, case = make().train(), CASES["HealDA"]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    run = halcyon.inference(model)
    case.run(run)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    loss(case.run(model)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weights_changed_in_place_are_seen():
    model, case = make(), CASES["HealDA"]
    run = halcyon.inference(model)
    before = case.run(run)
    loss(case.run(model)).backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    near(case.run(run), case.run(model), 1e-6)
    assert not torch.allclose(case.run(run), before)
    model.load_state_dict(make(seed=6).state_dict())
    near(case.run(run), case.run(make(seed=6)), 1e-6)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    near(case.run(run), case.run(model), 1e-6)


REPLACING = {
    "assign": lambda model: model.load_state_dict(make(seed=6).state_dict(), assign=True),
    "data": lambda model: [setattr(p, "data", 1.5 * p.data) for p in model.parameters()],
    "parameter": lambda model: setattr(model.get_submodule("dit.blocks.0.cross_attention.k_proj"), "weight",
                                       torch.nn.Parameter(torch.ones(4, 8, dtype=wide))),
    "swap": lambda model: swapped(model),
    "share_memory": lambda model: model.share_memory(),
}


def swapped(model):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict(make(seed=6).state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.parametrize("way", REPLACING)
def test_weights_put_in_place_of_others_are_seen_or_refused(way):
    """Never the old ones in silence."""
    model, case = make(), CASES["HealDA"]
    run = halcyon.inference(model)
    case.run(run)
    REPLACING[way](model)
    right_or_refused(lambda: case.run(run), lambda y: near(y, case.run(model), 1e-6), REFUSED)
    near(case.run(halcyon.inference(model)), case.run(model), 1e-6)


def test_tied_weights_and_copies():
    model, case = make(), CASES["HealDA"]
    one, other = (model.get_submodule(f"dit.blocks.{i}.attention.attn_op.qkv") for i in range(2))
    other.weight = one.weight
    run = halcyon.inference(model)
    near(case.run(run), case.run(model), 1e-6)
    second = halcyon.inference(copy.deepcopy(model))
    with torch.no_grad():
        one.weight.mul_(1.5)
    near(case.run(run), case.run(model), 1e-6)
    assert not torch.allclose(case.run(second), case.run(run))


def test_mixed_types_are_refused_or_right():
    model, case = make(), CASES["HealDA"]
    model.dit.blocks[0].linear.float()
    right_or_refused(lambda: case.run(halcyon.inference(model)), lambda y: near(y, case.run(make()), 1e-4), (
        "inference", "dtype", "float"))


def test_a_model_that_was_converted_later():
    """double() lays other memory under the same parameters: seen, or refused."""
    case, model = CASES["HealDA"], make(dtype=torch.float32)
    run = halcyon.inference(model)
    case.run(run, torch.float32)
    model.double()
    right_or_refused(lambda: case.run(run), lambda y: near(y, case.run(model), 1e-6), ("inference", "dtype", "Float"))


def without_labels(**options):
    return randomise(halcyon.HealDA(**(TINY | dict(condition_dim=0) | options)), 0.4).double().eval()


UNLABELED = healda_inputs() | dict(class_labels=None)
STILL = UNLABELED | dict(t=torch.zeros(1, dtype=wide))


@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_noise(fixed):
    model = without_labels()
    run = halcyon.inference(model, fixed_noise=fixed)
    near(run(**STILL), model(**STILL), 1e-6)
    right_or_refused(lambda: run(**UNLABELED), lambda y: near(y, model(**UNLABELED), 1e-6), ("VideoDiT", "fixed_noise"))


@pytest.mark.parametrize("way", ["inference", "prepare_inference"])
def test_weights_changed_after_the_noise_was_fixed(way):
    """What was computed of the old weights must not stay."""
    model = without_labels()
    run = halcyon.inference(model, fixed_noise=True) if way == "inference" else model.prepare_inference()
    run(**STILL)
    other = without_labels()
    with torch.no_grad():
        for m in (model, other):
            m.get_submodule("dit.conditioning_embedder.map_layer1").weight.mul_(-2)
    right_or_refused(lambda: run(**STILL), lambda y: near(y, other(**STILL), 1e-6), (*REFUSED, "prepare"))


def test_nothing_is_dropped_also_of_a_model_in_training():
    options = dict(drop_path=0.9, drop_path_zero_first_n_blocks=0)
    model = without_labels(**options)
    expected = model(**STILL)
    near(halcyon.inference(model.train())(**STILL), expected, 1e-6)


def test_only_healda_is_taken():
    with pytest.raises((TypeError, ValueError), match="HealDA"):
        halcyon.inference(CASES["SelfAttention"].make())
