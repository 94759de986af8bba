# SPDX-License-Identifier: Apache-2.0
"""reduce_gradients and DataParallel against one process that sees all samples."""

import contextlib

import pytest
import torch

from conftest import SHARED
from halcyon import parallel
from ranks import Raised, on_ranks, rank, returned, world


def parameters(shapes, dtype=torch.float64):
    torch.manual_seed(rank())
    return [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in shapes]


SHAPES = [(3, 4), (5,), (), (40, 50), (2, 3, 4, 5)]


def reduced(dtypes, op, missing):
    """Gradients before and after; missing: pairs (rank, parameter) without."""
    params = [one for dtype in dtypes for one in parameters(SHAPES, dtype)]
    for i, one in enumerate(params):
        if (rank(), i) not in missing:
            one.grad = torch.randn(one.shape, dtype=torch.float64).to(one.dtype)
    before = [None if one.grad is None else one.grad.clone() for one in params]
    pointers = [None if one.grad is None else one.grad.data_ptr() for one in params]
    parallel.reduce_gradients(iter(params), op=op, weight=2.0 * rank() + 1)
    assert all(p is None or p == one.grad.data_ptr() for p, one in zip(pointers, params))
    return before, [one.grad for one in params]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("op", ["sum", "mean"])
def test_reduce_gradients(n, op):
    dtypes = [torch.float64, torch.float32, torch.bfloat16]
    missing = {(0, 1), (n - 1, 3), *((r, 6) for r in range(n))}
    results = returned(on_ranks(n, reduced, dtypes, op, missing))
    weights = [2.0 * r + 1 if op == "mean" else 1.0 for r in range(n)]
    for i, mine in enumerate(results[0][1]):
        before = [one[0][i] for one in results]
        if all(one is None for one in before):
            assert all(one[1][i] is None for one in results)
            continue
        wanted = sum(weight * one.double() for weight, one in zip(weights, before) if one is not None)
        wanted = wanted / (sum(weights) if op == "mean" else 1)
        accuracy = torch.finfo(mine.dtype).eps * 4
        torch.testing.assert_close(mine.double(), wanted, rtol=accuracy, atol=accuracy)
        assert all(torch.equal(one[1][i], mine) for one in results)


def reduce_lists(shapes, dtypes, op, weight):
    params = [torch.zeros(one, dtype=dtypes[rank()], requires_grad=True) for one in shapes[rank()]]
    parallel.reduce_gradients(params, op=op[rank()], weight=weight[rank()])


@pytest.mark.parametrize("shapes, dtypes, op, weight, text", [
    ([[(2,)], [(2,), (3,)]], [torch.float32] * 2, ["sum"] * 2, [1, 1], "number of params"),
    ([[(2,)], [(3,)]], [torch.float32] * 2, ["sum"] * 2, [1, 1], "shapes, dtypes"),
    ([[(2,)], [(2,)]], [torch.float32, torch.float64], ["sum"] * 2, [1, 1], "shapes, dtypes"),
    ([[(2,)], [(2,)]], [torch.float32] * 2, ["sum", "mean"], [1, 1], "op"),
    ([[(2,)], [(2,)]], [torch.float32] * 2, ["max"] * 2, [1, 1], 'got "max"'),
    ([[(2,)], [(2,)]], [torch.float32] * 2, ["mean"] * 2, [1, -1.0], "-1 on rank 1"),
    ([[(2,)], [(2,)]], [torch.float32] * 2, ["mean"] * 2, [0, 0], "above zero"),
])
def test_reduce_gradients_refuses(shapes, dtypes, op, weight, text):
    for result in on_ranks(2, reduce_lists, shapes, dtypes, op, weight):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    returned(on_ranks(2, reduce_lists, [[(2,)]] * 2, [torch.float32] * 2, ["sum"] * 2, [1, 1]))


def network(width=6, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, width),
                               torch.nn.Tanh(), torch.nn.Linear(width, 1)).double()


def trained(x, sizes, bucket_bytes, weighted, width, steps=3):
    """Losses are means over this rank's samples; every rank begins with weights of its own."""
    model = parallel.DataParallel(network(width, seed=rank()), bucket_bytes=bucket_bytes)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(steps):
        optimizer.zero_grad()
        mine = x[step].split(sizes)[rank()]
        if weighted:
            model.sample_count = len(mine)
        (model(mine) - mine[:, :1]).square().mean().backward()
        optimizer.step()
    return [one.detach() for one in model.parameters()], [one.grad for one in model.parameters()]


@pytest.mark.parametrize("bucket_bytes", [1, 400, 25 << 20])
@pytest.mark.parametrize("sizes", [[6], [3, 3], [5, 1], [6, 0], [2, 2, 2], [3, 0, 3], [1, 2, 2, 1]])
def test_training_is_that_of_one_process(sizes, bucket_bytes):
    torch.manual_seed(5)
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    weighted = len(set(sizes)) > 1
    for width in (6, 64):
        one = network(width)
        optimizer = torch.optim.SGD(one.parameters(), 0.1)
        for step in range(3):
            optimizer.zero_grad()
            (one(x[step]) - x[step][:, :1]).square().mean().backward()
            optimizer.step()
        results = returned(on_ranks(len(sizes), trained, x, sizes, bucket_bytes, weighted, width))
        for weights, grads in results:
            for mine, first, wanted in zip(weights, results[0][0], one.parameters()):
                assert torch.equal(mine, first)
                torch.testing.assert_close(mine, wanted.detach(), rtol=1e-11, atol=1e-12)
            for mine, wanted in zip(grads, one.parameters()):
                torch.testing.assert_close(mine, wanted.grad, rtol=1e-11, atol=1e-12)


def accumulated(x):
    model = parallel.DataParallel(network(), bucket_bytes=200)
    for i, mine in enumerate(x.chunk(world())[rank()].chunk(3)):
        with model.no_sync() if i < 2 else contextlib.nullcontext():
            model(mine).sum().backward()
        if i == 1:
            local = [one.grad.clone() for one in model.parameters()]
    return local, [one.grad for one in model.parameters()]


def test_no_sync_accumulates_until_the_next_backward():
    x = torch.randn(12, 4, dtype=torch.float64)
    one = network()
    one(x).sum().backward()
    results = returned(on_ranks(2, accumulated, x))
    assert not torch.equal(results[0][0][0], results[1][0][0])
    for _, grads in results:
        for mine, wanted in zip(grads, one.parameters()):
            torch.testing.assert_close(mine, wanted.grad / 2)


class Branches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.left, self.right, self.never = (torch.nn.Linear(3, 3).double() for _ in range(4))

    def forward(self, x, right):
        return (self.right if right else self.left)(self.shared(x))


def branches(x, find_unused, rights):
    torch.manual_seed(3)
    model = parallel.DataParallel(Branches(), bucket_bytes=1, find_unused_parameters=find_unused)
    model(x[rank()], rights[rank()]).sum().backward()
    grads = {name: one.grad for name, one in model.module.named_parameters()}
    try:
        model(x[rank()], rights[rank()])
    except ValueError as error:
        return grads, str(error)
    return grads, ""


def test_unused_parameters():
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.manual_seed(3)
    one = Branches()
    (one(x[0], False).sum() / 2 + one(x[1], True).sum() / 2).backward()
    results = returned(on_ranks(2, branches, x, True, [False, True]))
    for grads, text in results:
        assert not text
        for name, wanted in one.named_parameters():
            if name.startswith("never"):
                assert grads[name] is None
            else:
                torch.testing.assert_close(grads[name], wanted.grad)
    results = returned(on_ranks(2, branches, x, False, [False, True]))
    assert results[0][1] == results[1][1]
    for name in ("left.weight", "right.bias", "never.weight"):
        assert name in results[0][1]
    assert "shared" not in results[0][1] and "find_unused_parameters" in results[0][1]


def made(widths, seeds, **keywords):
    model = network(widths[rank()], seeds[rank()])
    if seeds[rank()] < 0:
        model[0].bias.requires_grad_(False)
    return [one.detach() for one in parallel.DataParallel(model, **keywords).parameters()]


@pytest.mark.parametrize("widths, seeds, text", [([6, 5], [0, 0], "shapes"), ([6, 6], [0, -1], "number of parameters")])
def test_models_that_differ(widths, seeds, text):
    for result in on_ranks(2, made, widths, seeds):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    results = returned(on_ranks(2, made, [6, 6], [0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(*results))


def counted_on_one():
    model = parallel.DataParallel(network())
    model.sample_count = 3 if rank() == 0 else None
    x = torch.ones(2, 4, dtype=torch.float64)
    try:
        model(x).sum().backward()
    except RuntimeError as error:
        text = str(error)
    model.sample_count = None
    model.zero_grad()
    model(x).sum().backward()
    return text, [one.grad for one in model.parameters()]


def test_sample_count_on_one_rank_only():
    results = returned(on_ranks(2, counted_on_one))
    assert results[0][0] == results[1][0] and "sample_count" in results[0][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1]))


def not_finite_without_samples(x):
    model = parallel.DataParallel(network())
    mine = x[:0] if rank() == 1 else x
    model.sample_count = len(mine)
    model(mine).mean().backward()
    return [one.grad for one in model.parameters()]


def test_a_rank_without_samples_counts_for_nothing():
    x = torch.randn(5, 4, dtype=torch.float64)
    one = network()
    one(x).mean().backward()
    for grads in returned(on_ranks(2, not_finite_without_samples, x)):
        for mine, wanted in zip(grads, one.parameters()):
            assert torch.equal(mine, wanted.grad)


class TwoConvolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = torch.nn.Conv2d(2, 4, 3, padding=1).double()
        self.c2 = torch.nn.Conv2d(4, 1, 5, padding=2).double()

    def forward(self, x):
        return self.c2(torch.nn.functional.gelu(self.c1(x)))


def golden_step(golden):
    model = TwoConvolutions()
    if rank() == 0:  # the others take them over
        model.load_state_dict({name[6:]: t for name, t in golden.items() if name.startswith("param.")})
    model = parallel.DataParallel(model)
    x, target = (golden[name].tensor_split(world())[rank()] for name in ("x", "target"))
    torch.nn.functional.mse_loss(model(x), target).backward()
    grads = {name: one.grad.clone() for name, one in model.module.named_parameters()}
    torch.optim.SGD(model.parameters(), 0.1).step()
    return grads, {name: one.detach() for name, one in model.module.named_parameters()}


def test_golden():
    path = SHARED / "golden" / "parallel" / "ddp_n2.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    from safetensors.torch import load_file
    golden = load_file(path)
    for grads, weights in returned(on_ranks(2, golden_step, golden)):
        for name, grad in grads.items():
            torch.testing.assert_close(grad, golden[f"grad.{name}"], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(weights[name], golden[f"after_sgd_lr0.1.{name}"], rtol=1e-12, atol=1e-12)


def with_buffers():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    for one in model.buffers():
        one.fill_(rank() + 5)
    model[0].weight.requires_grad_(False).fill_(rank() + 7)
    made = parallel.DataParallel(model)
    return [one for one in made.buffers()], made.module[0].weight.detach()


def test_buffers_and_frozen_parameters_come_from_rank_0():
    for buffers, frozen in returned(on_ranks(3, with_buffers)):
        assert all(one.eq(5).all() for one in buffers) and frozen.eq(7).all()


def grad_of_autograd(x):
    model = parallel.DataParallel(network())
    first = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    model(x).sum().backward()
    return first, [one.grad for one in model.parameters()]


def test_autograd_grad_stays_on_its_rank():
    for first, grads in returned(on_ranks(2, grad_of_autograd, torch.ones(3, 4, dtype=torch.float64))):
        assert all(torch.equal(a, b) for a, b in zip(first, grads))


def alone():
    model = parallel.DataParallel(network())
    model(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    return [one.grad for one in model.parameters()]


def test_alone_and_wrong_types():
    one = network()
    one(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    assert all(torch.equal(mine, wanted.grad) for mine, wanted in zip(alone(), one.parameters()))
    with pytest.raises(TypeError, match="Module"):
        parallel.DataParallel(lambda x: x)
    with pytest.raises(ValueError, match="need a gradient"):
        parallel.DataParallel(torch.nn.Tanh())
    with pytest.raises(ValueError, match="bucket_bytes"):
        parallel.DataParallel(network(), bucket_bytes=0)


def checkpointed(x, reentrant):
    torch.manual_seed(0)
    model = parallel.DataParallel(Checkpointed(reentrant), bucket_bytes=1)
    for _ in range(2):
        model.zero_grad()
        model(x[rank()].clone().requires_grad_()).sum().backward()
    model(x[rank()])
    return [one.grad for one in model.parameters()]


class Checkpointed(torch.nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.middle, self.last = (torch.nn.Linear(3, 3).double() for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x).tanh()
        return self.last(torch.utils.checkpoint.checkpoint(self.middle, x, use_reentrant=self.reentrant).tanh()).tanh()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpoints(reentrant):
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.manual_seed(0)
    one = Checkpointed(False)
    (sum(one(part).sum() for part in x) / 2).backward()
    for grads in returned(on_ranks(2, checkpointed, x, reentrant)):
        for mine, wanted in zip(grads, one.parameters()):
            torch.testing.assert_close(mine, wanted.grad)


def twice(x):
    """Without zero_grad, and through the same graph again: each backward adds its mean."""
    model = parallel.DataParallel(network(), bucket_bytes=300)
    out = model(x[rank()]).sum()
    out.backward(retain_graph=True)
    out.backward()
    return [one.grad for one in model.parameters()]


def test_backward_adds_to_what_is_there():
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    one = network()
    one(x.flatten(0, 1)).sum().backward()
    for grads in returned(on_ranks(2, twice, x)):
        for mine, wanted in zip(grads, one.parameters()):
            torch.testing.assert_close(mine, wanted.grad)


def in_half(x, dtype):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 1, 1).float()).to(dtype)
    model = parallel.DataParallel(model.to(memory_format=torch.channels_last))
    model(x[rank()].to(dtype)).sum().backward()
    local = [one.grad.clone() for one in model.parameters()]
    with model.no_sync():
        model.zero_grad()
        model(x[rank()].to(dtype)).sum().backward()
    return local, [one.grad for one in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_types_and_channels_last(dtype):
    results = returned(on_ranks(3, in_half, torch.randn(3, 2, 3, 6, 6), dtype))
    for i, mean in enumerate(results[0][0]):
        assert all(torch.equal(mean, one[0][i]) for one in results)
        wanted = (sum(one[1][i].float() for one in results) / 3).to(dtype)
        assert torch.equal(mean, wanted)
