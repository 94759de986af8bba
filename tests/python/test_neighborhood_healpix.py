# SPDX-License-Identifier: Apache-2.0
"""Attention to a disk or to rings of HEALPix pixels, against dense attention under a mask made from the geometry."""

import functools
import math

import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from torch.autograd import forward_ad

import halcyon

#          dtype: (out, gradient), relative to the largest value
BOUNDS = {torch.float64: (1e-12, 1e-11), torch.float32: (5e-6, 2e-5), torch.bfloat16: (8e-3, 3e-2),
          torch.float16: (1e-3, 4e-3)}
X0, Y0 = torch.tensor([1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 3]), torch.tensor([1, 2, 3, 4, 1, 2, 3, 4, 2, 3, 4, 5])


def points(level, dx, dy):
    """Unit vectors, nest order, of the point (dx, dy) of every pixel, both counted in 0..1 from its south corner."""
    n, pix = 2**level, torch.arange(12 * 4**level)
    x = sum((pix >> 2 * b & 1) << b for b in range(level)) if level else torch.zeros_like(pix)
    y = sum((pix >> 2 * b + 1 & 1) << b for b in range(level)) if level else torch.zeros_like(pix)
    across, along = X0[pix // n**2] + (x + dx).double() / n, (y + dy).double() / n - Y0[pix // n**2]
    xs, ys = (across - along - 1) * math.pi / 4, (across + along) * math.pi / 4
    tilt = (ys.abs() - math.pi / 4) / (ys.abs() - math.pi / 2) * (xs.remainder(math.pi / 2) - math.pi / 4)
    cap = ys.abs() > math.pi / 4 + 1e-9
    z = torch.where(cap, ys.sign() * (1 - (2 - 4 * ys.abs() / math.pi) ** 2 / 3), 8 * ys / (3 * math.pi)).clamp(-1, 1)
    lon, r = torch.where(cap, xs - tilt.nan_to_num(0, 0, 0), xs), (1 - z * z).sqrt()
    return torch.stack([r * lon.cos(), r * lon.sin(), z], 1)


def touching(level):
    """(X, X): True where two pixels have a corner point in common; sharing an edge is sharing two."""
    corners = torch.stack([points(level, dx, dy) for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1))])
    return sum((torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") < 1e-5).int()
               for a in corners for b in corners) > 0


def nest_of_pad_xy(level):
    n = 2**level
    pix = torch.arange(12 * n * n)
    x, y = n - 1 - pix // n % n, n - 1 - pix % n
    return pix // n**2 * n * n + sum((x >> b & 1) << 2 * b | (y >> b & 1) << 2 * b + 1 for b in range(max(level, 1)))


@functools.cache
def visible_in_nest(level, radius_deg, rings):
    if rings is not None:
        step = touching(level).float()
        seen = torch.eye(len(step))
        for _ in range(rings):
            seen = (seen @ step > 0).float()
        return seen > 0
    centres = points(level, 0.5, 0.5)
    cosine = centres @ centres.mT
    limit = math.cos(math.radians(radius_deg))
    assert (cosine - limit).abs().min() > 1e-6   # so that float32 and float64 agree
    return cosine > limit


def visible(level, radius_deg=None, rings=None, order="nest", region=None):
    """(X, X): which pixels attend to which, numbered in this order and restricted to the region."""
    nest = nest_of_pad_xy(level) if order == "pad_xy" else torch.arange(12 * 4**level)
    nest = nest if region is None else nest[region]
    return visible_in_nest(level, radius_deg, rings)[nest][:, nest]


def test_the_mask_of_this_file():
    """Twelve faces, 8 neighbours, 7 at the eight points where three faces meet, rings that reach everything."""
    assert touching(0).sum(1).tolist() == [7] * 12   # two of a face's four corners are such points
    for level in (1, 2, 3):
        counts = touching(level).sum(1) - 1
        assert (counts == 7).sum() == 24 and (counts == 8).sum() == 12 * 4**level - 24
    assert visible(1, rings=8).all() and not visible(1, rings=1).all()


WINDOWS = [dict(level=0, radius_deg=10), dict(level=0, radius_deg=100.3), dict(level=0, rings=0),
           dict(level=0, rings=1), dict(level=1, radius_deg=40.1), dict(level=1, rings=1),
           dict(level=2, radius_deg=31), dict(level=2, rings=2), dict(level=3, radius_deg=12.3),
           dict(level=3, rings=1), dict(level=3, rings=3), dict(level=1, rings=20)]


def compare(window, region=None, heads=4, groups=2, d=5, e=3, batch=2, dtype=torch.float64, scale=None):
    mask = visible(**window, region=region)
    shapes = (batch, len(mask), heads, d), (batch, len(mask), groups, d), (batch, len(mask), groups, e)
    mine = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    wide = [t.detach().double().requires_grad_() for t in mine]
    out = halcyon.neighborhood_attention_healpix(*mine, **window, region=region, scale=scale)
    wanted, _ = reference.masked_attention(*wide, mask, scale)
    assert out.dtype == dtype
    near(out, wanted, BOUNDS[dtype][0])
    incoming = torch.randn(wanted.shape).to(dtype)
    gradients = torch.autograd.grad(out, mine, incoming), torch.autograd.grad(wanted, wide, incoming.double())
    for got, want in zip(*gradients):
        error, size = (got.double() - want).abs(), max(1, want.abs().max().item() if want.numel() else 0)
        assert got.shape == want.shape and (error <= BOUNDS[dtype][1] * size).all()


@pytest.mark.parametrize("order", ["nest", "pad_xy"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_against_dense(window, order):
    compare(window | dict(order=order))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("window", [dict(level=2, radius_deg=31), dict(level=3, rings=2, order="pad_xy")], ids=str)
def test_dtypes_widths_and_scales(window, dtype):
    for heads, groups, d, e, batch, scale in ((1, 1, 1, 33, 1, None), (3, 3, 16, 8, 2, 0.5), (6, 2, 33, 1, 1, 0),
                                              (2, 1, 4, 4, 0, None)):
        compare(window, None, heads, groups, d, e, batch, dtype, scale)


@pytest.mark.parametrize("order", ["nest", "pad_xy"])
@pytest.mark.parametrize("window", [dict(level=2, radius_deg=31), dict(level=2, rings=1), dict(level=3, rings=2)],
                         ids=str)
@pytest.mark.parametrize("pixels", [1, 17, 100])
def test_region(pixels, window, order):
    """Pixels in any sequence; rings are those of the whole sphere, also through pixels that are not in the region."""
    region = torch.randperm(12 * 4 ** window["level"])[:pixels]
    compare(window | dict(order=order), region)


def test_orders_are_the_same_attention():
    nest = nest_of_pad_xy(3)
    q, k, v = (torch.randn(1, 768, 2, 4, dtype=torch.float64) for _ in range(3))
    for window in (dict(radius_deg=12.3), dict(rings=2)):
        there = halcyon.neighborhood_attention_healpix(q, k, v, 3, **window)
        here = halcyon.neighborhood_attention_healpix(*(t[:, nest] for t in (q, k, v)), 3, **window, order="pad_xy")
        near(here, there[:, nest], 1e-13)
    region = torch.arange(9)
    one = halcyon.neighborhood_attention_healpix(q[:, :9], k[:, :9], v[:, :9], 3, None, 2, "pad_xy", region, 0.3)
    two = halcyon.neighborhood_attention_healpix(q=q[:, :9], k=k[:, :9], v=v[:, :9], level=3, rings=2, order="pad_xy",
                                                 region=region, scale=0.3)
    assert torch.equal(one, two)


def test_level_four_and_layouts():
    window = dict(level=4, radius_deg=10.46)
    q, k, v = (torch.randn(3072, 2, 1, 4).transpose(0, 1)[:1] for _ in range(3))   # [1, 3072, 1, 4], not contiguous
    out = halcyon.neighborhood_attention_healpix(q, k, v, **window)
    near(out, reference.masked_attention(q, k, v, visible(**window))[0], 1e-5)


def test_forward_mode_and_threads():
    window = dict(level=2, radius_deg=31)
    x = [torch.randn(1, 192, 2, 4, dtype=torch.float64) for _ in range(3)]
    tangents = [torch.randn_like(t) for t in x]
    mask = visible(**window)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(x, tangents)]
        ours = forward_ad.unpack_dual(halcyon.neighborhood_attention_healpix(*duals, **window)).tangent
        near(ours, forward_ad.unpack_dual(reference.masked_attention(*duals, mask)[0]).tangent, 1e-11)
    before = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        leaves = [t.float().requires_grad_() for t in x]
        out = halcyon.neighborhood_attention_healpix(*leaves, **window)
        results.append([out, *torch.autograd.grad(out, leaves, torch.ones_like(out))])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


@pytest.mark.parametrize("window", WINDOWS[3:], ids=str)
def test_stats(window):
    region = torch.randperm(12 * 4 ** window["level"])[:11]
    for own in (None, region):
        mask = visible(**window, region=own)
        stats = halcyon.neighborhood_attention_healpix_stats(**window, region=own)
        assert set(stats) == {"pixels", "pairs", "computed", "useful_share"}
        assert (stats["pixels"], stats["pairs"]) == (len(mask), mask.sum().item())
        assert stats["pairs"] <= stats["computed"]
        assert stats["useful_share"] == pytest.approx(stats["pairs"] / stats["computed"])


def test_pairs_of_the_released_model():
    """The published count, of float32 products against the cosine in float32."""
    stats = halcyon.neighborhood_attention_healpix_stats(level=6, radius_deg=10.46)
    assert (stats["pixels"], stats["pairs"]) == (49152, 20143424)
