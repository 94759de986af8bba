# SPDX-License-Identifier: Apache-2.0
"""fully_shard (FSDP2) over two ranks on the CPU: forward, backward, steps and the gathered state as of one process."""

import pytest
import torch
from conftest import near
from habits import CASES, loss, one_thread, same  # noqa: F401
from ranks import on_ranks, rank, returned
from test_habits_data_parallel import in_one_process, share

import halcyon

wide = torch.float64
WHOLE_STATE = dict(full_state_dict=True, cpu_offload=True)


def mesh():
    return torch.distributed.device_mesh.init_device_mesh("cpu", (2,))


def sharded(model, **options):
    """Every block a group of its own, the rest one of the root."""
    over = mesh()
    for m in list(model.modules()):
        if m is not model and isinstance(m, halcyon.VideoDiTBlock):
            torch.distributed.fsdp.fully_shard(m, mesh=over, **options)
    return torch.distributed.fsdp.fully_shard(model, mesh=over, **options)


def gathered(model):
    return {key: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
            for key, p in model.state_dict().items()}


def trained(name, steps, options):
    model = sharded(CASES[name].make(seed=5), **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    grads, outputs = None, []
    for round in range(steps):
        args, kwargs = share(name, rank(), round)
        optimizer.zero_grad()
        y = model(*args, **kwargs)
        loss(y).backward()
        if round == 0:
            grads = {key: p.grad.full_tensor() for key, p in model.named_parameters()}
        outputs.append(y.detach())
        optimizer.step()
    rows = max(p.to_local().numel() / p.numel() for p in model.parameters())
    return outputs, grads, gathered(model), rows


@pytest.mark.parametrize("name", ["SelfAttention", "PixelCrossAttention", "VideoDiTBlock", "VideoDiT", "HealDA"])
@pytest.mark.parametrize("reshard", [True, False])
def test_fully_shard_is_one_process_with_all_data(name, reshard):
    outputs, grads, state = in_one_process(name, 2)
    results = returned(on_ranks(2, trained, name, 2, dict(reshard_after_forward=reshard)))
    for index, found in enumerate(results):
        for round in range(2):
            near(found[0][round], outputs[round][index], 1e-9)
        same(found[1], grads, 1e-9)
        same(found[2], state, 1e-9)


def state_of():
    """The whole state on the first rank, loaded into a plain model and into sharded ones."""
    from torch.distributed.checkpoint import state_dict as dcp
    options = dcp.StateDictOptions(**WHOLE_STATE)
    model = sharded(CASES["HealDA"].make(seed=5))
    state = dcp.get_model_state_dict(model, options=options)
    whole = {key: value.clone() for key, value in state.items()}  # loading changes the dictionary
    other = sharded(CASES["HealDA"].make(seed=6))
    dcp.set_model_state_dict(other, state, options=dcp.StateDictOptions(full_state_dict=True,
                                                                         broadcast_from_rank0=True))
    args, kwargs = share("HealDA", rank())
    with torch.no_grad():
        y, z = model(*args, **kwargs), other(*args, **kwargs)
    return whole, y, z


def test_the_gathered_state_is_the_plain_one():
    results = returned(on_ranks(2, state_of))
    plain = CASES["HealDA"].make(seed=5)
    same(results[0][0], plain.state_dict(), 1e-12)
    other = CASES["HealDA"].make(seed=6)
    other.load_state_dict(results[0][0])
    for index, (_, y, z) in enumerate(results):
        args, kwargs = share("HealDA", index)
        near(y, plain(*args, **kwargs), 1e-9)
        assert torch.equal(y, z)
        near(other(*args, **kwargs), plain(*args, **kwargs), 1e-12)


def from_meta(state):
    """Made without memory, sharded, then given memory and weights: as models too large for one device are."""
    from torch.distributed.checkpoint import state_dict as dcp
    with torch.device("meta"):
        model = CASES["HealDA"].build().double()
    model = sharded(model)
    model.to_empty(device="cpu")
    dcp.set_model_state_dict(model, state, options=dcp.StateDictOptions(full_state_dict=True,
                                                                         broadcast_from_rank0=True))
    args, kwargs = share("HealDA", rank())
    return model(*args, **kwargs).detach()


def test_a_sharded_model_made_on_meta():
    plain = CASES["HealDA"].make(seed=5)
    for index, y in enumerate(returned(on_ranks(2, from_meta, plain.state_dict()))):
        args, kwargs = share("HealDA", index)
        near(y, plain(*args, **kwargs), 1e-9)


def in_bfloat16(name):
    """The mixed precision policy: parameters of float32, computed with in bfloat16."""
    policy = torch.distributed.fsdp.MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = sharded(CASES[name].make(torch.float32), mp_policy=policy)
    args, kwargs = CASES[name].given(torch.bfloat16)
    y = model(*args, **kwargs)
    loss(y).backward()
    kinds = {p.dtype for p in model.parameters()} | {p.grad.dtype for p in model.parameters()}
    return y.detach(), {key: p.grad.full_tensor() for key, p in model.named_parameters()}, kinds


@pytest.mark.parametrize("name", ["SelfAttention", "VideoDiTBlock"])
def test_mixed_precision(name):
    case = CASES[name]
    low, full = case.make(torch.bfloat16), case.make(wide)
    expected = case.run(low, torch.bfloat16)
    loss(case.run(full)).backward()
    for y, grads, kinds in returned(on_ranks(2, in_bfloat16, name)):
        assert y.dtype == torch.bfloat16 and kinds == {torch.float32}
        near(y, expected, 1e-2)
        for key, p in full.named_parameters():
            scale = max(q.grad.abs().max() for q in full.parameters())
            assert (grads[key] - p.grad).abs().max() <= 0.1 * scale, key


def hooked():
    model, seen = sharded(CASES["HealDA"].make()), {}
    layer = model.get_submodule("dit.blocks.1.cross_attention.k_proj")
    layer.register_forward_hook(lambda m, args, y: seen.update(y=y.detach().clone()) or 2 * y)
    args, kwargs = share("HealDA", rank())
    return model(*args, **kwargs).detach(), seen["y"].shape


def test_hooks_inside_a_sharded_model():
    plain = CASES["HealDA"].make()
    plain.get_submodule("dit.blocks.1.cross_attention.k_proj").register_forward_hook(lambda m, args, y: 2 * y)
    for index, (y, shape) in enumerate(returned(on_ranks(2, hooked))):
        args, kwargs = share("HealDA", index)
        near(y, plain(*args, **kwargs), 1e-9)
        assert shape[0] == 10 + 7 * index
