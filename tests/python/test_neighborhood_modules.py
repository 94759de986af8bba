# SPDX-License-Identifier: Apache-2.0
"""NeighborhoodAttention1D, 2D and 3D: goldens, state, names of the width, the choice of the path, both dropouts."""

import inspect

import neighborhood_goldens as goldens
import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from references import randomise
from torch.utils.flop_counter import FlopCounterMode

import halcyon

AXES = [1, 2, 3]
SIGNATURE = ("dim=None, num_heads=1, kernel_size=3, dilation=1, is_causal=False, rel_pos_bias=False, qkv_bias=True, "
             "qk_scale=None, attn_drop=0.0, proj_drop=0.0, stride=1, periodic=False, fused=None, embed_dim=None")


def module_of(axes):
    return getattr(halcyon, f"NeighborhoodAttention{axes}D")


@pytest.fixture
def fused_switch():
    before = halcyon.is_fused_na_enabled(), halcyon.is_kv_parallelism_in_fused_na_enabled()
    yield halcyon.use_fused_na
    halcyon.use_fused_na(before[0])
    halcyon.use_kv_parallelism_in_fused_na(before[1])


def built(config, x, **more):
    options = {k: v for k, v in config.items() if k not in ("op", "dims", "repr", "parameters", "source")}
    module = module_of(config["dims"])(**(options | more)).to(x["x"].dtype)
    module.load_state_dict({k[6:]: t for k, t in x.items() if k.startswith("param.")})
    return module


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("name", goldens.CASES["modules_017"])
def test_goldens_017(shared, name, fused):
    config, x = goldens.case(shared, "modules_017", name)
    module = built(config, x, fused=fused)
    assert {k: list(p.shape) for k, p in module.named_parameters()} == config["parameters"]
    y = module(x["x"].requires_grad_())
    near(y, x["y"], 1e-12)
    y.backward(x["d_y"])
    near(x["x"].grad, x["d_x"], 1e-12)
    for k, p in module.named_parameters():
        near(p.grad, x[f"grad.{k}"], 1e-12)


@pytest.mark.parametrize("name", goldens.CASES["modules_021"])
def test_goldens_021(shared, name):
    config, x = goldens.case(shared, "modules_021", name)
    module = built(config, x)
    assert {k: list(t.shape) for k, t in module.state_dict().items()} == config["parameters"]
    near(module(x["x"]), x["y"], 5e-6)
    near(module.double()(x["x"].double()), x["y"], 2e-6)


WINDOW = ("kernel_size", "dilation", "stride", "is_causal", "periodic")
OPTIONS = [dict(), dict(kernel_size=4, dilation=2, rel_pos_bias=True),
           dict(is_causal=True, qkv_bias=False, qk_scale=0.7), dict(kernel_size=1, qk_scale=0),
           dict(stride=2, rel_pos_bias=True), dict(periodic=True, rel_pos_bias=True, dilation=2),
           dict(is_causal=True, stride=3)]


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("axes", AXES)
def test_against_the_reference(axes, options, fused):
    """fused=False with a stride or a periodic axis takes the fused operator all the same."""
    module = randomise(module_of(axes)(8, 2, **options, fused=fused)).double()
    x = torch.randn(2, *[8] * axes, 8, dtype=torch.float64, requires_grad=True)
    wide = x.detach().clone().requires_grad_()
    state = {k: p.detach().clone().requires_grad_() for k, p in module.named_parameters()}
    window = {"kernel_size": 3} | {k: v for k, v in options.items() if k in WINDOW}
    y, wanted = module(x), reference.module(wide, state, 2, scale=options.get("qk_scale"), **window)
    near(y, wanted, 1e-11)
    incoming = torch.randn_like(y)
    y.backward(incoming)
    wanted.backward(incoming)
    near(x.grad, wide.grad, 1e-11)
    for name, parameter in module.named_parameters():
        error, size = (parameter.grad - state[name].grad).abs().max(), state[name].grad.abs().max()
        assert error <= 1e-10 * max(size, 1), name


@pytest.mark.parametrize("axes", AXES)
def test_arguments_and_state(axes):
    signature = inspect.signature(module_of(axes))
    plain = signature.replace(parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
                              return_annotation=signature.empty)
    assert str(plain)[1:-1] == SIGNATURE and issubclass(module_of(axes), torch.nn.Module)
    module = module_of(axes)(12, 3, kernel_size=4, rel_pos_bias=True)
    expected = {"qkv.weight": (36, 12), "qkv.bias": (36,), "rpb": (3, *[7] * axes), "proj.weight": (12, 12),
                "proj.bias": (12,)}
    assert {k: tuple(t.shape) for k, t in module.state_dict().items()} == expected
    assert set(dict(module.named_parameters())) == set(expected) and module.training
    plain = module_of(axes)(embed_dim=12, num_heads=3, qkv_bias=False)
    assert set(plain.state_dict()) == {"qkv.weight", "proj.weight", "proj.bias"}
    assert module.double().rpb.dtype == torch.float64 and not module.eval().training


def test_initial_bias():
    """Normal with deviation 0.02; the cut at +-2 is a hundred deviations away."""
    table = module_of(3)(16, 8, kernel_size=7, rel_pos_bias=True).rpb.detach()
    assert abs(table.mean()) < 1e-3 and abs(table.std() - 0.02) < 1e-3 and 0.05 < table.abs().max() < 0.2


def operators(function):
    """Names of the operators in which the counter saw work."""
    with FlopCounterMode(display=False) as counter:
        function()
    return {str(name) for name in counter.get_flop_counts()["Global"]}


def test_the_switch_chooses_the_path(fused_switch):
    x = torch.randn(1, 5, 6, 2, 4)
    h = x.movedim(-2, 1)
    fused = operators(lambda: halcyon.na2d(x, x, x, 3))
    unfused = operators(lambda: halcyon.na2d_av(halcyon.na2d_qk(h, h, 3), h, 3))
    fused, unfused = fused - unfused, unfused - fused
    assert fused and unfused

    def path(**options):
        module = halcyon.NeighborhoodAttention2D(8, 2, **options)
        return operators(lambda: module(x.flatten(-2))) & (fused | unfused)
    for on in (False, True):
        fused_switch(on)
        assert path() == (fused if on else unfused)
        assert path(fused=True) == fused and path(fused=False) == unfused
        assert path(fused=False, stride=2) == path(fused=None, periodic=True) == fused
    module = halcyon.NeighborhoodAttention2D(8, 2)
    fused_switch(False)
    y = module(x.flatten(-2))
    fused_switch(True)   # also after the module was made
    near(module(x.flatten(-2)), y, 1e-5)
    assert operators(lambda: module(x.flatten(-2))) & (fused | unfused) == fused


def weights_module(p, **options):
    """1-D, 3 tokens, one head: equal weights on all, and its output on the identity is the weights themselves."""
    module = halcyon.NeighborhoodAttention1D(3, 1, kernel_size=3, attn_drop=p, qkv_bias=False, **options)
    with torch.no_grad():
        module.qkv.weight.copy_(torch.cat([torch.zeros(6, 3), torch.eye(3)]))
        module.proj.weight.copy_(torch.eye(3))
        module.proj.bias.zero_()
    return module


@pytest.mark.parametrize("options", [dict(fused=False), dict(fused=True), dict(stride=2), dict(periodic=True)],
                         ids=str)
def test_attention_dropout(options):
    module = weights_module(0.25, **options)
    x = torch.eye(3).repeat(1000, 1, 1).requires_grad_()
    weights = module(x)
    kept = weights > 0
    near(weights[kept], torch.full_like(weights[kept], 1 / 3 / 0.75), 1e-6)
    assert abs(kept.float().mean() - 0.75) < 0.02
    assert not torch.equal(weights[:500], weights[500:]) and not torch.equal(module(x), weights)
    incoming = torch.randn_like(weights)   # the gradient sees the same weights
    near(torch.autograd.grad(weights, x, incoming)[0], weights.mT @ incoming, 1e-5)
    torch.manual_seed(4)
    first = module(x)
    torch.manual_seed(4)
    assert torch.equal(module(x), first)
    near(module.eval()(x), torch.full_like(x, 1 / 3), 1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_projection_dropout(fused):
    module = halcyon.NeighborhoodAttention2D(8, 2, proj_drop=0.5, fused=fused)
    x = torch.randn(1, 9, 9, 8)
    y, full = module(x), module.eval()(x)
    assert ((y == 0) | ((y - 2 * full).abs() < 1e-5)).all() and 0.4 < (y == 0).float().mean() < 0.6
