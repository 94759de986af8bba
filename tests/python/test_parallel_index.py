# SPDX-License-Identifier: Apache-2.0
"""gather_index: entries of a cut axis by their numbers, against indexing the whole."""

import pytest
import torch

import halcyon
from ranks import Raised, on_ranks, part, rank, returned

CUTS = {1: [[9]], 2: [[5, 4], [0, 9]], 3: [[3, 3, 3], [8, 0, 1]], 4: [[3, 2, 2, 2], [0, 6, 0, 3]]}
CASES = [(n, sizes) for n, all_sizes in CUTS.items() for sizes in all_sizes]
ROWS = 9


def whole(dtype=torch.float64, dim=0):
    generator = torch.Generator().manual_seed(dim)
    shape = [2, 3, 4]
    shape[dim] = ROWS
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(10).to(dtype)


def wanted(n):
    """What each rank asks for: repeated, out of order, missing, of several shapes, nothing."""
    generator = torch.Generator().manual_seed(n)
    shapes = [(4, 5), (), (0,), (7,)]
    found = [torch.randint(-1, ROWS, shapes[r % 4], generator=generator) for r in range(n)]
    return [one if one.dim() else one.clamp(min=0) for one in found]


def chosen(x, index, dim):
    """By the definition."""
    taken = x.index_select(dim, index.flatten().clamp(min=0))
    zero = (index.flatten() < 0).reshape([-1 if i == dim else 1 for i in range(x.dim())])
    taken = taken.masked_fill(zero, 0)
    return taken.reshape(x.shape[:dim] + index.shape + x.shape[dim + 1:])


def gathered(x, sizes, indices, dim, weights):
    mine = part(x, sizes, dim).clone().requires_grad_()
    out = halcyon.parallel.gather_index(mine, indices[rank()], dim)
    first, = torch.autograd.grad((out.pow(3) * weights[rank()]).sum(), mine, create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), mine)
    return out.detach(), first.detach(), second


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("n, sizes", CASES)
def test_entries_by_definition(n, sizes, dim):
    x, indices = whole(dim=dim), wanted(n)
    reference = x.clone().requires_grad_()
    expected = [chosen(reference, index, dim) for index in indices]
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(one.shape, generator=generator, dtype=x.dtype) for one in expected]
    loss = sum((one.pow(3) * weight).sum() for one, weight in zip(expected, weights))
    first, = torch.autograd.grad(loss, reference, create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), reference)
    results = returned(on_ranks(n, gathered, x, sizes, indices, dim, weights))
    for (out, _, _), one in zip(results, expected):
        assert torch.equal(out, one)
    torch.testing.assert_close(torch.cat([one[1] for one in results], dim), first.detach(), rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(torch.cat([one[2] for one in results], dim), second, rtol=1e-12, atol=1e-6)


def plain(x, sizes, indices, dim=0, strided=False):
    mine = part(x, sizes, dim)
    if strided:
        mine = mine.transpose(0, -1).contiguous().transpose(0, -1)
    return halcyon.parallel.gather_index(mine, indices[rank()], dim)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_dtypes_and_strides(dtype, strided):
    x, indices = whole(dtype, 1), wanted(3)
    for one, index in zip(returned(on_ranks(3, plain, x, [4, 0, 5], indices, 1, strided)), indices):
        assert one.dtype == dtype and torch.equal(one, chosen(x, index, 1))


def test_negative_dim_and_what_is_all_missing():
    x, indices = whole(dim=2), [torch.full((2, 2), -1), torch.arange(ROWS)]
    results = returned(on_ranks(2, plain, x, [4, 5], indices, -1))
    assert torch.equal(results[0], torch.zeros(2, 3, 2, 2, dtype=x.dtype)) and torch.equal(results[1], x)


def neighbours(x, level):
    pixels = torch.arange(12 * 4**level).tensor_split(torch.distributed.get_world_size())[rank()]
    return halcyon.parallel.gather_index(part(x, dim=1), halcyon.healpix.neighbours(level, pixels), 1)


def test_neighbours_of_healpix_pixels():
    level = 2
    x = torch.randn(3, 12 * 4**level)
    index = halcyon.healpix.neighbours(level, torch.arange(12 * 4**level))
    assert torch.equal(torch.cat(returned(on_ranks(3, neighbours, x, level)), 1), chosen(x, index, 1))


@pytest.mark.parametrize("indices", [
    [torch.tensor([0, ROWS]), torch.tensor([0])], [torch.tensor([0]), torch.tensor([1, -2])],
    [torch.tensor([0.0]), torch.tensor([0.0])], [torch.tensor([0]), torch.tensor([0], dtype=torch.int32)],
])
def test_what_cannot_be_done_is_refused_by_all_with_one_text(indices):
    results = on_ranks(2, plain, whole(), [5, 4], indices)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith("[gather_index] expected")
    assert returned(on_ranks(2, plain, whole(), [5, 4], wanted(2)))[0].shape == (4, 5, 3, 4)


def mismatched(xs, dims):
    return halcyon.parallel.gather_index(xs[rank()], torch.tensor([0]), dims[rank()])


@pytest.mark.parametrize("xs, dims", [
    ([torch.zeros(4, 3), torch.zeros(4, 2)], [0, 0]), ([torch.zeros(4, 3), torch.zeros(4, 3).double()], [0, 0]),
    ([torch.zeros(4, 4), torch.zeros(4, 4)], [0, 1]), ([torch.zeros(4, 4), torch.zeros(4, 4)], [5, 0]),
])
def test_mismatch_is_an_error_on_every_rank(xs, dims):
    for one in on_ranks(2, mismatched, xs, dims):
        assert isinstance(one, Raised) and one.kind is ValueError, one


def needs_gradient_on_one(x):
    mine = part(x, dim=0).clone().requires_grad_(rank() == 1)
    out = halcyon.parallel.gather_index(mine, torch.tensor([8, 0, 8]), 0)
    out.sum().backward()
    return mine.grad


def test_a_gradient_wanted_on_one_rank_only():
    grads = returned(on_ranks(2, needs_gradient_on_one, whole()))
    assert grads[0] is None and torch.equal(grads[1][:, 0, 0], torch.tensor([0., 0., 0., 4.], dtype=torch.float64))
