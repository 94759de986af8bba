# SPDX-License-Identifier: Apache-2.0
"""shard, gather, shard_x and shard_t: bitwise the whole, first and second derivatives, refusals on every rank."""

import pytest
import torch
from safetensors.torch import load_file

import halcyon
from ranks import Raised, on_ranks, part, rank, returned, world

parallel = halcyon.parallel


def sizes_of(n, ranks):
    return [len(one) for one in torch.empty(n).tensor_split(ranks)]


def whole(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(5).to(dtype)


def derivatives(function, x, weight):
    """The result, and the first and second derivative of a cubic of it."""
    x = x.detach().clone().requires_grad_()
    out = function(x)
    first, = torch.autograd.grad((out.pow(3) * weight).sum(), x, create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), x)
    return out.detach(), first.detach(), second


def resharded(name, x, sizes, axis, weight, to):
    function = getattr(parallel, name)
    return derivatives(function, part(x, sizes, axis), part(weight, sizes_of(weight.shape[to], world()), to))


HELD = {1: [[5]], 2: [[3, 2], [4, 1], [0, 5]], 3: [[2, 2, 1], [0, 5, 0], [1, 0, 4]], 4: [[2, 1, 1, 1], [0, 3, 0, 2]],
        8: [[1] * 5 + [0] * 3]}


@pytest.mark.parametrize("n, sizes", [(n, sizes) for n, all_sizes in HELD.items() for sizes in all_sizes])
@pytest.mark.parametrize("name, axis, to", [("shard_x", 1, 2), ("shard_t", 2, 1)])
def test_reshard_by_the_whole(n, sizes, name, axis, to):
    for batch, other, rest in [(1, 7, (3,)), (2, 6, (3,)), (2, 2, (2, 3)), (1, 3, (1,))]:
        shape = [batch, 5, 5, *rest]
        shape[to] = other
        x, weight = whole(*shape), whole(*shape).sin()
        expected = derivatives(lambda t: t, x, weight)
        results = returned(on_ranks(n, resharded, name, x, sizes, axis, weight, to))
        for r, (out, first, second) in enumerate(results):
            assert torch.equal(out, x.split(sizes_of(other, n), to)[r]) and out.is_contiguous()
            assert torch.equal(first, expected[1].split(sizes, axis)[r])
            assert torch.equal(second, expected[2].split(sizes, axis)[r])


def moved(name, x, sizes, axis, strided):
    mine = part(x, sizes, axis)
    if strided:
        mine = mine.transpose(0, -1).contiguous().transpose(0, -1)
    return getattr(parallel, name)(mine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
@pytest.mark.parametrize("strided", [False, True])
def test_reshard_moves_what_it_is_given(dtype, strided):
    # frames of 256 KiB and more go as messages of their own, smaller ones together
    for channels in (3, 5000):
        x = whole(2, 5, 33, channels, dtype=dtype)
        for name, axis, to in (("shard_x", 1, 2), ("shard_t", 2, 1)):
            sizes = {1: [1, 4], 2: [30, 3]}[axis]
            for r, out in enumerate(returned(on_ranks(2, moved, name, x, sizes, axis, strided))):
                assert out.dtype == dtype and torch.equal(out, x.tensor_split(2, to)[r])


def there_and_back(x, sizes):
    return parallel.shard_t(parallel.shard_x(part(x, sizes, 1)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_there_and_back(n):
    x = whole(2, 6, 12, 4, dtype=torch.float32)
    out = returned(on_ranks(n, there_and_back, x, sizes_of(6, n)))
    assert torch.equal(torch.cat(out, 1), x)


def golden_case(full, grad_x, grad_t):
    x = part(full, sizes_of(full.shape[1], world()), 1).clone().requires_grad_()
    sharded = halcyon.shard_x(x)
    dx, = torch.autograd.grad((sharded * part(grad_x, sizes_of(full.shape[2], world()), 2)).sum(), x, retain_graph=True)
    out = halcyon.shard_t(sharded)
    if grad_t is None:
        return sharded.detach(), out.detach(), dx, None
    round_trip, = torch.autograd.grad((out * part(grad_t, sizes_of(full.shape[1], world()), 1)).sum(), x)
    return sharded.detach(), out.detach(), dx, round_trip


@pytest.mark.parametrize("n", [2, 3])
def test_goldens(shared, n):
    tensors = load_file(shared / "golden" / "parallel" / f"reshard_n{n}.safetensors")
    for case in {name.split(".")[0] for name in tensors}:
        full, grad_x, grad_t = (tensors.get(f"{case}.{name}") for name in ("full", "grad_x_sharded", "grad_t_sharded"))
        if f"{case}.t_sizes" in tensors:
            assert tensors[f"{case}.t_sizes"].tolist() == sizes_of(full.shape[1], n)
            assert tensors[f"{case}.x_sizes"].tolist() == sizes_of(full.shape[2], n)
        results = returned(on_ranks(n, golden_case, full, grad_x, grad_t))
        for i, (axis, expected) in enumerate([(2, full), (1, full), (1, grad_x), (1, grad_t)]):
            if expected is not None:
                assert torch.equal(torch.cat([one[i] for one in results], axis), expected), (case, i)


def parts(x, dim, weight):
    return derivatives(lambda t: parallel.shard(t, dim), x, part(weight, dim=dim))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [0, 1, -2, -1])
def test_shard(n, dim):
    x, weight = whole(3, 5, 2, 4), whole(3, 5, 2, 4).cos()
    expected = derivatives(lambda t: t, x, weight)
    for r, (out, first, second) in enumerate(returned(on_ranks(n, parts, x, dim, weight))):
        assert torch.equal(out, x.tensor_split(n, dim)[r])
        assert torch.equal(first, expected[1]) and torch.equal(second, expected[2])  # whole on every rank


def gathered(x, sizes, dim, weights, sum_grad):
    return derivatives(lambda t: parallel.gather(t, dim, sum_grad=sum_grad), part(x, sizes, dim), weights[rank()])


@pytest.mark.parametrize("n, sizes", [(n, sizes) for n, all_sizes in HELD.items() for sizes in all_sizes])
@pytest.mark.parametrize("sum_grad", [False, True])
def test_gather(n, sizes, sum_grad):
    for dim in (0, 1, -1):
        shape = [2, 3, 4]
        shape[dim] = 5
        x = whole(*shape)
        weights = [whole(*shape).add(r if sum_grad else 0).sin() for r in range(n)]
        total = sum(weights) if sum_grad else weights[0]
        _, first, _ = derivatives(lambda t: t, x, total)
        # every rank's loss is its own of the whole; the first derivative is each rank's part of the sum
        reference = x.clone().requires_grad_()
        inner, = torch.autograd.grad((reference.pow(3) * total).sum(), reference, create_graph=True)
        second, = torch.autograd.grad(inner.pow(2).sum(), reference)
        for r, one in enumerate(returned(on_ranks(n, gathered, x, sizes, dim, weights, sum_grad))):
            assert torch.equal(one[0], x)
            torch.testing.assert_close(one[1], first.split(sizes, dim)[r], rtol=1e-13, atol=1e-12)
            torch.testing.assert_close(one[2], second.split(sizes, dim)[r], rtol=1e-13, atol=1e-12)


def half_sum(x):
    mine = part(x, dim=0).clone().requires_grad_()
    out = parallel.gather(mine, 0, sum_grad=True)
    (out * (1 if rank() == 0 else 2**-8)).sum().backward()
    return out.detach(), mine.grad


def test_gather_of_halves_sums_in_float():
    x = whole(6, 3, dtype=torch.bfloat16)
    expected = torch.full((2, 3), 1 + 2**-7, dtype=torch.bfloat16)  # added one by one in bfloat16 it would be 1
    for out, grad in returned(on_ranks(3, half_sum, x)):
        assert torch.equal(out, x) and torch.equal(grad, expected)


def called(name, x, *args):
    return getattr(parallel, name)(x[rank()], *[one[rank()] if isinstance(one, list) else one for one in args])


@pytest.mark.parametrize("name, x, args, text", [
    ("shard_x", [torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 5, 3)], (), "size of axis 2 of x"),
    ("shard_x", [torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3).double()], (), "dtype of x"),
    ("shard_t", [torch.zeros(1, 2, 4, 3), torch.zeros(2, 2, 4, 3)], (), "size of axis 0 of x"),
    ("shard_t", [torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3, 1)], (), "number of axes of x"),
    ("gather", [torch.zeros(2, 3), torch.zeros(2, 4)], (0,), "size of axis 1 of x"),
    ("gather", [torch.zeros(3, 3), torch.zeros(3, 3)], ([0, 1],), ""),
    ("shard", [torch.zeros(2, 3), torch.zeros(3, 3)], (0,), "size of axis 0 of x"),
    ("shard", [torch.zeros(3, 3), torch.zeros(3, 3)], ([0, 1],), "dim"),
])
def test_mismatch_is_an_error_on_every_rank(name, x, args, text):
    for result in on_ranks(2, called, name, x, *args):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
        assert result.text.startswith(f"[{name}] expected")
    assert returned(on_ranks(2, called, "gather", [torch.ones(2, 3), torch.ones(1, 3)], 0))[0].shape == (3, 3)


@pytest.mark.parametrize("name, x, args", [
    ("shard_x", [torch.zeros(2, 4, 3)] * 3, ()), ("shard_t", [torch.zeros(4)] * 3, ()),
    ("gather", [torch.zeros(4, 3)] * 3, (2,)), ("shard", [torch.zeros(4, 3)] * 3, (-3,)),
    ("shard_x", [torch.zeros(1, 2, 3, 1), torch.zeros(3), torch.zeros(1, 2, 3, 1)], ()),  # one rank's mistake
])
def test_what_cannot_be_done_is_refused_with_one_text(name, x, args):
    results = on_ranks(3, called, name, x, *args)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert len({one.text for one in results}) == 1 and results[0].text.startswith(f"[{name}] expected")


def needs_gradient_on_one(x, name):
    mine = part(x, dim=1).clone().requires_grad_(rank() == 1)
    if name == "gather":
        parallel.gather(mine, 1, sum_grad=True).sum().backward()
    else:
        parallel.shard_x(mine).sum().backward()
    return mine.grad


def test_a_gradient_wanted_on_one_rank_only():
    for name, value in (("shard_x", 1.0), ("gather", 3.0)):
        grads = returned(on_ranks(3, needs_gradient_on_one, whole(1, 4, 5, 2), name))
        assert grads[0] is None and grads[2] is None and (grads[1] == value).all()


def alone():
    x = torch.arange(24.).reshape(1, 2, 4, 3)
    for function in (halcyon.shard_x, halcyon.shard_t, parallel.shard, parallel.gather):
        assert torch.equal(function(x), x)
    with pytest.raises(TypeError, match="ProcessGroup"):
        halcyon.shard_x(x, "gloo")


def test_alone():
    alone()


def in_a_subgroup(x):
    groups = [torch.distributed.new_group(ranks) for ranks in ([0, 2], [1])]
    if rank() == 1:
        return parallel.gather(x, 1, groups[1])
    index = 0 if rank() == 0 else 1
    return parallel.gather(parallel.shard(x, 1, groups[0]) + index, 1, groups[0])


def test_subgroups():
    x = whole(1, 5, 2)
    results = returned(on_ranks(3, in_a_subgroup, x))
    joined = torch.cat([x[:, :3], x[:, 3:] + 1], 1)
    assert torch.equal(results[0], joined) and torch.equal(results[2], joined) and torch.equal(results[1], x)
