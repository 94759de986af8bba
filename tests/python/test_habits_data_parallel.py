# SPDX-License-Identifier: Apache-2.0
"""DataParallel and DistributedDataParallel (gloo, two ranks) against one process with both halves of the data."""

import pytest
import torch
from conftest import near
from habits import CASES, callable_modules, healda_inputs, loss, numbers, one_thread, same  # noqa: F401
from ranks import on_ranks, rank, returned
from torch.nn.parallel import DataParallel, DistributedDataParallel

wide = torch.float64


def share(name, index, round=0):
    """The data of one rank: no two have the same number of observations."""
    args, kwargs = CASES[name].given(wide)
    if name == "HealDA":
        return (), healda_inputs(observations=10 + 7 * index, seed=3 + index + 10 * round)
    return (args[0] + numbers(*args[0].shape, seed=20 + index + 10 * round), *args[1:]), kwargs


class WithSpare(torch.nn.Module):
    """A model with a part that no forward uses, as a head of another task."""

    def __init__(self, model):
        super().__init__()
        self.model, self.spare = model, torch.nn.Linear(3, 3, dtype=wide)

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def on_rank(name, steps, options, spare=False, checkpoint=False):
    """Gradients of the first step and weights after the last, with the outputs of this rank."""
    model = CASES[name].make(seed=5 + rank() if options.get("init_sync", True) else 5)
    inner = WithSpare(model) if spare else model
    wrapped = DistributedDataParallel(inner, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    grads, outputs = None, []
    for round in range(steps):
        args, kwargs = share(name, rank(), round)
        optimizer.zero_grad()
        y = wrapped(*args, **kwargs)
        loss(y).backward()
        if round == 0:
            grads = {key: p.grad.clone() for key, p in model.named_parameters()}
        outputs.append(y.detach())
        optimizer.step()
    return outputs, grads, {key: value.clone() for key, value in model.state_dict().items()}


def in_one_process(name, steps):
    model = CASES[name].make(seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    grads, outputs = None, []
    for round in range(steps):
        optimizer.zero_grad()
        ys = [model(*args, **kwargs) for args, kwargs in (share(name, index, round) for index in range(2))]
        (sum(loss(y) for y in ys) / 2).backward()
        if round == 0:
            grads = {key: p.grad.clone() for key, p in model.named_parameters()}
        outputs.append([y.detach() for y in ys])
        optimizer.step()
    return outputs, grads, model.state_dict()


def assert_as_one(name, options, steps=3, spare=False):
    outputs, grads, state = in_one_process(name, steps)
    for index, found in enumerate(returned(on_ranks(2, on_rank, name, steps, options, spare))):
        for round in range(steps):
            near(found[0][round], outputs[round][index], 1e-9)
        same(found[1], grads, 1e-10)
        same(found[2], state, 1e-10)


@pytest.mark.parametrize("name", ["SelfAttention", "PixelCrossAttention", "ObsTokenizerFiLM", "VideoDiT", "HealDA"])
def test_ddp_is_one_process_with_all_data(name):
    """The ranks start with other weights: those of the first are everybody's."""
    assert_as_one(name, {})


@pytest.mark.parametrize("options", [dict(find_unused_parameters=True), dict(static_graph=True),
                                     dict(gradient_as_bucket_view=True, bucket_cap_mb=0.001),
                                     dict(broadcast_buffers=False)], ids=str)
def test_ddp_options(options):
    assert_as_one("HealDA", options, spare="find_unused_parameters" in options)


def accumulated():
    """Two backward passes, the first without an exchange."""
    model = CASES["HealDA"].make()
    wrapped, ys = DistributedDataParallel(model), []
    with wrapped.no_sync():
        loss(wrapped(**share("HealDA", rank(), 0)[1])).backward()
    loss(wrapped(**share("HealDA", rank(), 1)[1])).backward()
    return {key: p.grad for key, p in model.named_parameters()}, ys


def test_ddp_with_accumulated_gradients():
    model = CASES["HealDA"].make()
    for round in range(2):
        for index in range(2):
            (loss(model(**share("HealDA", index, round)[1])) / 2).backward()
    for found, _ in returned(on_ranks(2, accumulated)):
        same(found, {key: p.grad for key, p in model.named_parameters()}, 1e-10)


def hooked():
    """Hooks on inner modules and a communication hook of DDP."""
    model, seen = CASES["VideoDiT"].make(), set()
    wrapped = DistributedDataParallel(model)
    for key, m in callable_modules(model).items():
        m.register_forward_hook(lambda m, args, y, key=key: seen.add(key))

    def halved(state, bucket):
        future = torch.futures.Future()
        future.set_result(bucket.buffer() / 2)
        return future

    wrapped.register_comm_hook(None, halved)
    args, kwargs = share("VideoDiT", rank())
    loss(wrapped(*args, **kwargs)).backward()
    return sorted(seen), {key: p.grad for key, p in model.named_parameters()}


def test_hooks_under_ddp():
    for index, (seen, found) in enumerate(returned(on_ranks(2, hooked))):
        model = CASES["VideoDiT"].make()
        args, kwargs = share("VideoDiT", index)
        (loss(model(*args, **kwargs)) / 2).backward()
        assert seen == sorted(callable_modules(model))
        same(found, {key: p.grad for key, p in model.named_parameters()}, 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_data_parallel_without_a_gpu(name):
    """It passes the call on, and its state has the prefix module."""
    case = CASES[name]
    model = case.make()
    wrapped = DataParallel(model)
    assert torch.equal(case.run(wrapped), case.run(model))
    assert list(wrapped.state_dict()) == ["module." + key for key in model.state_dict()]
    loss(case.run(wrapped)).backward()
    assert all(p.grad is not None for p in model.parameters())
