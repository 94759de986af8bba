# SPDX-License-Identifier: Apache-2.0
"""healpix_pad and neighborhood_attention_healpix over ranks, against the whole."""

import os
import pathlib

import pytest
import torch
from safetensors.torch import load_file

import halcyon
from ranks import Raised, on_ranks, part, rank, returned

SHARED = os.environ.get("HALCYON_SHARED_DIR", pathlib.Path(__file__).parents[3] / "shared")
PADDING = os.path.join(SHARED, "golden/parallel/ref_healpix_padding.safetensors")
FACES = {1: [[12]], 2: [[6, 6], [1, 11]], 3: [[4, 4, 4], [0, 5, 7]], 4: [[3, 3, 3, 3], [2, 0, 9, 1]]}
FACE_CASES = [(n, sizes) for n, all_sizes in FACES.items() for sizes in all_sizes]


def padded(x, sizes, padding, g, dim):
    mine = part(x, sizes, dim).clone().requires_grad_()
    out = halcyon.parallel.healpix_pad(mine, padding)
    grad, = torch.autograd.grad(out, mine, part(g, sizes, dim))
    return out.detach(), grad


@pytest.mark.skipif(not os.path.exists(PADDING), reason="no goldens")
@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("n, sizes", FACE_CASES)
def test_padding_of_the_reference(n, sizes, padding):
    golden = {name.split(".")[1]: one for name, one in load_file(PADDING).items() if f"_p{padding}." in name}
    for batch in (False, True):
        x, g = (golden[name].unsqueeze(0) if batch else golden[name] for name in ("x", "g"))
        results = returned(on_ranks(n, padded, x, sizes, padding, g, int(batch)))
        out, grad = (torch.cat([one[i] for one in results], int(batch)) for i in (0, 1))
        assert torch.equal(out.reshape(golden["y"].shape), golden["y"])
        torch.testing.assert_close(grad.reshape(golden["dx"].shape), golden["dx"], rtol=1e-12, atol=1e-12)


def padded_twice(x, sizes, padding):
    mine = part(x, sizes, 1).clone().requires_grad_()
    out = halcyon.parallel.healpix_pad(mine, padding)
    first, = torch.autograd.grad(out.pow(3).sum(), mine, create_graph=True)
    second, = torch.autograd.grad(first.pow(2).sum(), mine)
    return out.detach(), first.detach(), second


@pytest.mark.parametrize("n, sizes", FACE_CASES[1:])
@pytest.mark.parametrize("width, padding", [(1, 1), (3, 3), (5, 2), (4, 0)])
def test_padding_equals_one_process(n, sizes, width, padding):
    x = torch.randn(2, 12, 3, width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
    expected = padded_twice(x, [12], padding)
    results = returned(on_ranks(n, padded_twice, x, sizes, padding))
    assert torch.equal(torch.cat([one[0] for one in results], 1), expected[0])
    for i in (1, 2):
        torch.testing.assert_close(torch.cat([one[i] for one in results], 1), expected[i], rtol=1e-12, atol=1e-10)


def pad_of(xs, paddings):
    return halcyon.parallel.healpix_pad(xs[rank()], paddings[rank()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_of_other_types(dtype):
    x = torch.randn(12, 2, 4, 4).to(dtype)
    results = returned(on_ranks(2, pad_of, list(x.split(6)), [2, 2]))
    assert torch.equal(torch.cat(results), halcyon.parallel.healpix_pad(x, 2)) and results[0].dtype == dtype


@pytest.mark.parametrize("faces, paddings", [([6, 5], [1, 1]), ([6, 6], [5, 5]), ([6, 6], [-1, -1])])
def test_padding_that_cannot_be_done(faces, paddings):
    results = on_ranks(2, pad_of, [torch.zeros(count, 2, 4, 4) for count in faces], paddings)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith("[healpix_pad] expected")


@pytest.mark.parametrize("second, padding", [
    (torch.zeros(6, 3, 4, 4), 1), (torch.zeros(6, 2, 4, 4).double(), 1), (torch.zeros(6, 2, 4, 4), 2),
    (torch.zeros(6, 2, 4, 5), 1), (torch.zeros(1, 6, 2, 4, 4), 1),
])
def test_padding_with_a_mismatch(second, padding):
    for one in on_ranks(2, pad_of, [torch.zeros(6, 2, 4, 4), second], [1, padding]):
        assert isinstance(one, Raised) and one.kind is ValueError, one
    assert returned(on_ranks(2, pad_of, [torch.zeros(6, 2, 4, 4)] * 2, [1, 1]))[0].shape == (6, 2, 6, 6)


LEVEL = 2
PIXELS = 12 * 4**LEVEL
PIXEL_CUTS = {1: [[PIXELS]], 2: [[96, 96], [5, 187]], 3: [[64, 64, 64], [0, 101, 91]], 4: [[48] * 4, [1, 0, 190, 1]]}
PIXEL_CASES = [(n, sizes) for n, all_sizes in PIXEL_CUTS.items() for sizes in all_sizes]


def operands(heads=2, key_heads=2, width=4, value_width=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, PIXELS, h, c, generator=generator, dtype=torch.float64).to(dtype)
            for h, c in ((heads, width), (key_heads, width), (key_heads, value_width), (heads, value_width))]


def attended(q, k, v, g, sizes, options):
    q, k, v = (part(one, sizes, 1).clone().requires_grad_() for one in (q, k, v))
    out = halcyon.parallel.neighborhood_attention_healpix(q, k, v, LEVEL, **options)
    grads = torch.autograd.grad(out, (q, k, v), part(g, sizes, 1))
    return out.detach(), *grads


@pytest.mark.parametrize("n, sizes", PIXEL_CASES)
@pytest.mark.parametrize("options", [
    {"rings": 1}, {"rings": 2, "order": "pad_xy"}, {"radius_deg": 20.0}, {"radius_deg": 35.0, "order": "pad_xy"},
    {"rings": 0}, {"radius_deg": 180.0, "scale": 0.3},
])
def test_attention_equals_one_process(n, sizes, options):
    q, k, v, g = operands(heads=4, value_width=3)
    whole = [one.clone().requires_grad_() for one in (q, k, v)]
    out = halcyon.neighborhood_attention_healpix(*whole, LEVEL, **options)
    expected = out.detach(), *torch.autograd.grad(out, whole, g)
    results = returned(on_ranks(n, attended, q, k, v, g, sizes, options))
    for i, one in enumerate(expected):
        torch.testing.assert_close(torch.cat([result[i] for result in results], 1), one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_attention_of_other_types(dtype, bound):
    q, k, v, g = operands(dtype=dtype)
    expected = halcyon.neighborhood_attention_healpix(q, k, v, LEVEL, rings=1)
    results = returned(on_ranks(3, attended, q, k, v, g, [64, 64, 64], {"rings": 1}))
    torch.testing.assert_close(torch.cat([one[0] for one in results], 1), expected, rtol=bound, atol=bound)


def attention_of(qs, options):
    q = qs[rank()]
    return halcyon.parallel.neighborhood_attention_healpix(q, q, q, **options[rank()])


@pytest.mark.parametrize("pixels, options", [
    ([96, 95], [{"level": 2, "rings": 1}] * 2), ([96, 96], [{"level": 2}] * 2),
    ([96, 96], [{"level": 2, "radius_deg": 200.0}] * 2), ([96, 96], [{"level": 2, "rings": 1, "radius_deg": 1.0}] * 2),
])
def test_attention_that_cannot_be_done(pixels, options):
    results = on_ranks(2, attention_of, [torch.zeros(1, count, 1, 4) for count in pixels], options)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text


@pytest.mark.parametrize("other", [{"level": 2, "rings": 2}, {"level": 2, "radius_deg": 3.0}, {"level": 3, "rings": 1},
                                   {"level": 2, "rings": 1, "order": "pad_xy"}, {"level": 2, "rings": 1, "scale": 1}])
def test_attention_with_a_mismatch(other):
    for one in on_ranks(2, attention_of, [torch.zeros(1, 96, 1, 4)] * 2, [{"level": 2, "rings": 1}, other]):
        assert isinstance(one, Raised) and one.kind is ValueError, one
