# SPDX-License-Identifier: Apache-2.0
"""halo_exchange and gather_rows: rows of other ranks, forward bitwise, backward and second backward by the whole."""

import pytest
import torch

import halcyon
from ranks import Raised, on_ranks, part, rank, returned

SIZES = {1: [[7]], 2: [[4, 3], [6, 1], [0, 7]], 3: [[3, 2, 2], [1, 0, 6], [5, 1, 1]], 4: [[2, 2, 2, 1], [0, 4, 0, 3]]}
CASES = [(n, sizes) for n, all_sizes in SIZES.items() for sizes in all_sizes]
LONGITUDES = 6


def rows(x, lo, hi, edge, sign=1.0):
    """Rows [lo, hi) of the whole axis -2 by the definition, one row at a time."""
    height, width = x.shape[-2:]
    found = []
    for i in range(lo, hi):
        if 0 <= i < height:
            row = x[..., i, :]
        elif edge == "zero":
            row = torch.zeros_like(x[..., 0, :])
        elif edge == "periodic":
            row = x[..., i % height, :]
        elif edge == "reflect":
            row = x[..., -i if i < 0 else 2 * (height - 1) - i, :]
        elif edge == "fold":
            row = x[..., -1 - i if i < 0 else 2 * height - 1 - i, :].roll(width // 2, -1) * sign
        else:
            continue
        found.append(row)
    return torch.stack(found, -2) if found else x[..., :0, :]


def whole(height=7, width=LONGITUDES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def exchanged(x, sizes, width, edge, weights):
    """Result, gradient and second derivative of this rank's part."""
    mine = part(x, sizes).clone().requires_grad_()
    out = halcyon.halo_exchange(mine, width, edge=edge)
    loss = (out.pow(3) * weights[rank()]).sum()
    first, = torch.autograd.grad(loss, mine, create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), mine)
    return out.detach(), first.detach(), second


@pytest.mark.parametrize("edge", ["zero", "periodic", "reflect", "fold", "none"])
@pytest.mark.parametrize("n, sizes", CASES)
def test_halo_by_definition(n, sizes, edge):
    x = whole()
    for width in [(0, 0), (1, 1), (2, 2), (3, 1), (0, 2), (5, 6), (6, 0)]:
        starts = [sum(sizes[:r]) for r in range(n + 1)]
        generator = torch.Generator().manual_seed(1)
        reference = x.clone().requires_grad_()
        wanted = [rows(reference, starts[r] - width[0], starts[r + 1] + width[1], edge) for r in range(n)]
        weights = [torch.randn(one.shape, generator=generator, dtype=x.dtype) for one in wanted]
        loss = sum((one.pow(3) * weight).sum() for one, weight in zip(wanted, weights))
        first, = torch.autograd.grad(loss, reference, create_graph=True)
        second, = torch.autograd.grad(first.pow(2).sum(), reference)
        results = returned(on_ranks(n, exchanged, x, sizes, width, edge, weights))
        for r, (out, _, _) in enumerate(results):
            assert torch.equal(out, wanted[r]), (edge, width, r)
        torch.testing.assert_close(torch.cat([one[1] for one in results], -2), first.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.cat([one[2] for one in results], -2), second, rtol=1e-12, atol=1e-12)


def chosen(x, sizes, wanted, edge, dim):
    return halcyon.parallel.gather_rows(part(x, sizes, dim), *wanted[rank()], dim, edge=edge)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_each_rank_chooses_its_rows(dtype):
    x = whole(dtype=torch.float64).mul(10).to(dtype)
    wanted = [(-2, 5), (3, 3), (6, 9)]
    for dim in (-2, 2):
        results = returned(on_ranks(3, chosen, x, [1, 0, 6], wanted, "zero", dim))
        for one, (lo, hi) in zip(results, wanted):
            assert one.dtype == dtype
            assert torch.equal(one, rows(x.double(), lo, hi, "zero").to(dtype))


def test_other_axes_and_strides():
    x = whole().transpose(0, 2)  # axis 0 has the rows, strided
    results = returned(on_ranks(2, chosen, x, [3, 4], [(-1, 4), (2, 8)], "periodic", 0))
    for one, (lo, hi) in zip(results, [(-1, 4), (2, 8)]):
        assert torch.equal(one, rows(x.transpose(0, 2), lo, hi, "periodic").transpose(0, 2))


def with_vector_sign(x, sizes, sign):
    return halcyon.halo_exchange(part(x, sizes), 2, edge="fold", fold_sign=sign)


def test_vector_components_change_sign_across_a_pole():
    x, sign = whole(), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64).reshape(3, 1, 1)
    results = returned(on_ranks(2, with_vector_sign, x, [4, 3], sign))
    assert torch.equal(results[0], rows(x, -2, 6, "fold", sign.squeeze(-2)))
    assert torch.equal(results[1], rows(x, 2, 9, "fold", sign.squeeze(-2)))


def halo_2d(x, width):
    """2 x 2 ranks: latitudes folded, longitudes periodic."""
    across = [torch.distributed.new_group(ranks) for ranks in ([0, 2], [1, 3])]
    along = [torch.distributed.new_group(ranks) for ranks in ([0, 1], [2, 3])]
    latitudes, longitudes = across[rank() % 2], along[rank() // 2]
    mine = x.tensor_split(2, -2)[rank() // 2].tensor_split(2, -1)[rank() % 2].clone().requires_grad_()
    out = halcyon.halo_exchange(mine, width, -2, latitudes, "fold", fold_group=longitudes, fold_sign=-1.0)
    out = halcyon.halo_exchange(out, width, -1, longitudes, "periodic")
    out.pow(3).sum().backward()
    return out.detach(), mine.grad


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("longitudes", [6, 7])
def test_corners_across_a_fold(width, longitudes):
    x = whole(width=longitudes).requires_grad_()
    padded = rows(x, -width, 7 + width, "fold", -1.0)
    padded = rows(padded.transpose(-1, -2), -width, longitudes + width, "periodic").transpose(-1, -2)
    results = returned(on_ranks(4, halo_2d, x.detach(), width))
    starts = {0: (0, 4), 1: (4, 7)}, {0: (0, (longitudes + 1) // 2), 1: ((longitudes + 1) // 2, longitudes)}
    loss = 0
    for r, (out, _) in enumerate(results):
        (top, bottom), (left, right) = starts[0][r // 2], starts[1][r % 2]
        wanted = padded[..., top:bottom + 2 * width, left:right + 2 * width]
        assert torch.equal(out, wanted)
        loss = loss + wanted.pow(3).sum()
    loss.backward()
    gradient = torch.cat([torch.cat([results[0][1], results[1][1]], -1), torch.cat([results[2][1], results[3][1]], -1)],
                         -2)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-12, atol=1e-12)


def halo_of(x, *args):
    return halcyon.halo_exchange(x[rank()], *[one[rank()] if isinstance(one, list) else one for one in args])


@pytest.mark.parametrize("arguments, text", [
    (([torch.zeros(4, 3), torch.zeros(4, 2)], 1), "size of axis 1 of x"),
    (([torch.zeros(4, 3), torch.zeros(4, 3).double()], 1), "dtype of x"),
    (([torch.zeros(4, 3), torch.zeros(1, 4, 3)], 1), "number of axes of x"),
    (([torch.zeros(4, 3)] * 2, [1, 2]), "halo_width before"),
    (([torch.zeros(4, 3)] * 2, 1, [-2, -1]), "axis"),
    (([torch.zeros(4, 3)] * 2, 1, -2, None, ["zero", "fold"]), ""),
])
def test_mismatch_is_an_error_on_every_rank(arguments, text):
    for result in on_ranks(2, halo_of, *arguments):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    assert returned(on_ranks(2, halo_of, [torch.ones(4, 3)] * 2, 1))[0].shape == (6, 3)


@pytest.mark.parametrize("arguments", [
    ([torch.zeros(4, 3)] * 3, -1), ([torch.zeros(4, 3)] * 3, 12, -2, None, "reflect"),
    ([torch.zeros(4, 3)] * 3, 1, 5), ([torch.zeros(4, 3)] * 3, 1, -2, None, "mirror"),
    ([torch.zeros(0, 3)] * 3, 1, -2, None, "periodic"), ([torch.zeros(4, 3)] * 3, 1, -1, None, "fold"),
])
def test_what_cannot_be_done_is_refused_with_one_text(arguments):
    results = on_ranks(3, halo_of, *arguments)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert len({one.text for one in results}) == 1 and results[0].text.startswith("[halo_exchange] expected")


def test_only_one_rank_asks_for_what_cannot_be_done():
    results = on_ranks(2, chosen, whole(), [4, 3], [(0, 7), (0, 99)], "reflect", -2)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text


def test_alone():
    x = whole()
    assert torch.equal(halcyon.HaloExchange(2)(x), rows(x, -2, 9, "zero"))
    assert torch.equal(halcyon.HaloExchange.trim(halcyon.HaloExchange(2)(x), 2, 2), x)
    with pytest.raises(TypeError, match="ProcessGroup"):
        halcyon.halo_exchange(x, 1, group="gloo")


def needs_gradient_on_one(x):
    mine = part(x).clone().requires_grad_(rank() == 0)
    out = halcyon.halo_exchange(mine, 1)
    out.sum().backward()
    return mine.grad


def test_a_gradient_wanted_on_one_rank_only():
    grad = returned(on_ranks(2, needs_gradient_on_one, whole()))
    assert grad[1] is None and torch.equal(grad[0][0, 0, :, 0], torch.tensor([1., 1., 1., 2.], dtype=torch.float64))
