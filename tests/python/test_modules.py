# SPDX-License-Identifier: Apache-2.0
"""Every module is a torch.nn.Module: state, training mode, copies, hooks, optimizers, autocast."""

import copy

import pytest
import torch
from conftest import near
from references import cu_of, randomise

import halcyon

TOKENS = (torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), cu_of([3, 0, 1]), 3)
CALENDAR = (torch.tensor([[3600.0]]), torch.tensor([[20.5]]))
LEVELS = dict(level_fine=1, level_coarse=0)
IDS = torch.tensor([0, 3, 1])
MODULES = {
    "AdaLNModulation": (lambda: halcyon.AdaLNModulation(4, 6), lambda x: (x(2, 6),)),
    "SelfAttention": (lambda: halcyon.SelfAttention(8, 2, qk_norm_type="RMSNorm"), lambda x: (x(2, 5, 8),)),
    "TemporalAttention": (lambda: halcyon.TemporalAttention(hidden_size=8, num_heads=2),
                          lambda x: (x(1, 3, 2, 8), *halcyon.rope_tables(4, 3))),
    "PixelCrossAttention": (lambda: halcyon.PixelCrossAttention(8, 3, 16, 1, 4, use_proj_bias=True),
                            lambda x: (x(1, 1, 3, 8), TOKENS[0].to(x(1).dtype), *TOKENS[1:])),
    "ObsTokenizerFiLM": (lambda: halcyon.ObsTokenizerFiLM(2, 4, n_embed=4), lambda x: (x(3), x(3, 2), IDS, IDS)),
    "EDMConditionEmbedder": (lambda: halcyon.EDMConditionEmbedder(6, 8), lambda x: (x(2),)),
    "HEALPixPatchTokenizer": (lambda: halcyon.HEALPixPatchTokenizer(in_channels=2, hidden_size=4, **LEVELS),
                              lambda x: (x(1, 2, 1, 48), *CALENDAR)),
    "HEALPixPatchDetokenizer": (lambda: halcyon.HEALPixPatchDetokenizer(hidden_size=4, out_channels=2, **LEVELS),
                                lambda x: (x(1, 1, 12, 4), x(1, 4))),
    "VideoDiTBlock": (lambda: halcyon.VideoDiTBlock(8, 2, condition_embed_dim=5), lambda x: (x(1, 1, 4, 8), x(1, 5))),
}


def run(name, module, dtype=torch.float32):
    generator = torch.Generator().manual_seed(9)
    y = module(*MODULES[name][1](lambda *shape: torch.randn(shape, generator=generator).to(dtype)))
    return torch.cat(y, -1) if isinstance(y, tuple) else y


@pytest.fixture(params=MODULES)
def named(request):
    return request.param, randomise(MODULES[request.param][0]())


def test_state_dict_round_trip(named):
    name, module = named
    other = MODULES[name][0]()
    outcome = other.load_state_dict(module.state_dict())
    assert not outcome.missing_keys and not outcome.unexpected_keys
    assert torch.equal(run(name, other), run(name, module))
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
        assert other.state_dict()[key].data_ptr() != value.data_ptr()


def test_load_state_dict_lists_everything_that_does_not_fit(named):
    _, module = named
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = dict(before)
    keys = list(state)
    misshapen = keys[-1]
    missing = [key for key in keys[:-1] if key != "map_noise.freqs"]   # filled in where a checkpoint lacks it
    for key in missing:
        del state[key]
    state[misshapen] = torch.zeros(3, 3, 3, 3, 3)
    state["first.extra"] = state["second.extra"] = torch.zeros(1)
    with pytest.raises(RuntimeError) as raised:
        module.load_state_dict(state)
    for key in (*missing, misshapen, "first.extra", "second.extra"):
        assert key in str(raised.value)
    state.pop(misshapen)
    outcome = module.load_state_dict(state, strict=False)
    assert set(outcome.missing_keys) == {*missing, misshapen}
    assert set(outcome.unexpected_keys) == {"first.extra", "second.extra"}
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_parameters_are_shared_with_the_library(named):
    name, module = named
    before = run(name, module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    changed = run(name, module)
    assert not torch.equal(changed, before)
    for parameter in module.parameters():
        parameter.data = parameter.data / 1.5
    near(run(name, module), before, 1e-5)


def test_copies_are_independent_and_equal(named):
    name, module = named
    other = copy.deepcopy(module)
    assert type(other) is type(module) and torch.equal(run(name, other), run(name, module))
    before = run(name, module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(run(name, module), before) and not torch.equal(run(name, other), before)


def test_modes_types_and_gradients(named):
    name, module = named
    assert module.training and not module.eval().training
    assert not any(m.training for m in module.modules()) and all(m.training for m in module.train().modules())
    assert type(module).__name__ in repr(module)
    single = run(name, module)
    single.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    module.zero_grad()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    double = run(name, module.to(torch.float64), torch.float64)
    assert double.dtype == torch.float64 and all(p.dtype == torch.float64 for p in module.parameters())
    near(single, double, 1e-5)
    assert run(name, module.to("cpu", torch.bfloat16), torch.bfloat16).dtype == torch.bfloat16


def test_autocast_and_reruns(named):
    name, module = named
    full = run(name, module)
    assert torch.equal(run(name, module), full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = run(name, module)
        assert torch.equal(run(name, module), low)
    near(low, full, 2e-2)
    low.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in module.parameters())


def test_optimizers_hooks_and_containers():
    first, second = (randomise(halcyon.SelfAttention(8, 2)) for _ in range(2))
    chain = torch.nn.Sequential(first, second)
    assert "1.attn_op.qkv.weight" in chain.state_dict() and len(list(chain.parameters())) == 8
    x, seen = torch.randn(1, 3, 8), []
    handle = first.register_forward_hook(lambda module, args, y: seen.append(y.shape))
    before = chain(x)
    handle.remove()
    optimizer = torch.optim.SGD(chain.parameters(), lr=0.1)
    chain(x).square().sum().backward()
    optimizer.step()
    assert seen == [(1, 3, 8)] and not torch.equal(chain(x), before)
