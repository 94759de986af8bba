# SPDX-License-Identifier: Apache-2.0
"""Numbering, centres, parents and neighbours of HEALPix pixels, against formulas and published values."""

import math

import pytest
import references
import torch
from references import rejected

from halcyon import healpix

ORDERS = ("nest", "ring", "pad_xy")


def every(level):
    return torch.arange(healpix.npix(level))


def vectors(level, order):
    lon, lat = (torch.deg2rad(a) for a in healpix.pix2ang(level, every(level), order))
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)


def interleaved(level):
    """nest_of_padxy by the definition: x on the even bits, y on the odd bits, both counted from the south corner."""
    n = 2**level
    pix = every(level)
    face, x, y = pix // n**2, n - 1 - pix // n % n, n - 1 - pix % n
    bits = sum((x >> b & 1) << 2 * b | (y >> b & 1) << 2 * b + 1 for b in range(max(level, 1)))
    return face * n * n + bits


def test_npix():
    assert [healpix.npix(level) for level in (0, 1, 5, 29)] == [12, 48, 12288, 12 * 4**29]
    assert type(healpix.npix(3)) is int


@pytest.mark.parametrize("level", [0, 1, 2, 4])
def test_nest_of_padxy(level):
    assert torch.equal(healpix.nest_of_padxy(level), interleaved(level))
    assert torch.equal(healpix.convert(level, every(level), "pad_xy", "nest"), interleaved(level))


def test_published_numbers():
    """The examples in healpy's documentation."""
    first = torch.arange(10)
    assert healpix.convert(1, first, "nest", "ring").tolist() == [13, 5, 4, 0, 15, 7, 6, 1, 17, 9]
    assert healpix.convert(1, first, "ring", "nest").tolist() == [3, 7, 11, 15, 2, 1, 6, 5, 10, 9]
    assert healpix.convert(4, torch.tensor([1504]), "ring", "nest").tolist() == [1130]
    lon, lat = healpix.pix2ang(4, torch.tensor([1440, 427]), "ring")
    assert lon[0] == 0 and abs(lat[0].item() - (90 - math.degrees(1.5291175943723188))) < 1e-10
    assert healpix.ang2pix(4, lon, lat, "ring").tolist() == [1440, 427]
    assert healpix.neighbours(0, torch.tensor([4]), "ring").tolist() == [[11, 7, 3, -1, 0, 5, 8, -1]]


@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize("second", ORDERS)
def test_convert_there_and_back(first, second):
    for level in (0, 1, 3):
        there = healpix.convert(level, every(level), first, second)
        assert there.dtype == torch.int64 and torch.equal(there.sort().values, every(level))
        assert torch.equal(healpix.convert(level, there.int(), second, first), every(level))
        assert torch.equal(vectors(level, first), vectors(level, second)[there])
    far = torch.tensor([[0, healpix.npix(29) - 1], [12345678901234567, 3]])
    assert torch.equal(healpix.convert(29, healpix.convert(29, far, first, second), second, first), far)


@pytest.mark.parametrize("level", [0, 1, 3])
def test_centres(level):
    lon, lat = healpix.pix2ang(level, every(level))
    expected = references.pad_xy_centres(level)
    assert lon.dtype == lat.dtype == torch.float64 and lon.min() >= 0 and lon.max() < 360
    assert ((lon - expected[0] + 180).remainder(360) - 180).abs().max() < 1e-10
    assert (lat - expected[1]).abs().max() < 1e-10
    assert vectors(level, "pad_xy").sum(0).abs().max() < 1e-10   # equal areas, placed evenly


def test_rings_go_from_north_to_south_and_east():
    lon, lat = healpix.pix2ang(3, every(3), "ring")
    steps = lat.diff()
    assert steps.max() < 1e-9 and len(lat.mul(1e6).round().unique()) == 4 * 8 - 1
    assert (lon.diff()[steps > -1e-9] > 0).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ang2pix_finds_the_pixel_of_every_centre(order, dtype):
    for level in (0, 2, 5):
        lon, lat = healpix.pix2ang(level, every(level), order)
        found = healpix.ang2pix(level, (lon + 720).to(dtype), lat.to(dtype), order=order)
        assert found.dtype == torch.int64 and torch.equal(found, every(level))


def test_ang2pix_of_any_point_broadcasts():
    lon, lat = torch.linspace(-180, 540, 37).double()[:, None] + 0.37, torch.linspace(-89.5, 89.5, 29).double()
    pix = healpix.ang2pix(4, lon, lat, "nest")
    assert pix.shape == (37, 29)
    u, v = torch.deg2rad(lon), torch.deg2rad(lat)
    points = torch.stack([v.cos() * u.cos(), v.cos() * u.sin(), v.sin().expand(37, 29)], -1)
    distance = torch.rad2deg((points * vectors(4, "nest")[pix]).sum(-1).clamp(-1, 1).acos())
    assert distance.max() < 1.5 * 58.6 / 16
    assert torch.equal(pix >> 8, healpix.ang2pix(0, lon, lat, "nest"))
    lat = torch.tensor([89.999, 89.999, -90, -90], dtype=torch.float64)
    poles = healpix.ang2pix(3, torch.tensor([10.0, 100, 10, 370], dtype=torch.float64), lat, "ring")
    assert (poles[:2] < 4).all() and (poles[2:] >= 764).all() and poles[2] == poles[3]


@pytest.mark.parametrize("dim, shape", [(-1, (2, 48)), (0, (48, 3)), (1, (2, 48, 3))])
def test_reorder(dim, shape):
    data = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out = healpix.reorder(data, "nest", "pad_xy", dim=dim)
    assert torch.equal(out, data.index_select(dim, interleaved(1)))
    assert torch.equal(healpix.reorder(out, "pad_xy", "nest", dim), data)
    weight = torch.randn(shape, dtype=torch.float64)
    out.backward(weight)
    assert torch.equal(data.grad, healpix.reorder(weight, "pad_xy", "nest", dim))
    ring = healpix.reorder(every(1) * 10, "ring", "nest")
    assert torch.equal(ring, 10 * healpix.convert(1, every(1), "nest", "ring"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("up", [0, 1, 3])
def test_parent(order, up):
    nest = healpix.convert(3, every(3), order, "nest")
    expected = healpix.convert(3 - up, nest >> 2 * up, "nest", order)
    assert torch.equal(healpix.parent(3, every(3), up, order=order), expected)
    assert torch.equal(healpix.parent(3, every(3)), healpix.parent(3, every(3), up=1, order="pad_xy"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", [1, 3])
def test_neighbours(order, level):
    table = healpix.neighbours(level, every(level), order)
    assert table.dtype == torch.int64 and table.shape == (healpix.npix(level), 8)
    missing = table < 0
    assert (table[missing] == -1).all() and missing.sum() == 24 and not missing[:, ::2].any()
    centre = vectors(level, order)
    for p, row in enumerate(table.tolist()):
        own = [q for q in row if q >= 0]
        assert len(set(own)) == len(own) and p not in own
        assert all(p in table[q].tolist() for q in own)
    pairs = (centre[:, None] * centre[table.clamp(min=0)]).sum(-1).clamp(-1, 1).acos().masked_fill(missing, 0)
    assert torch.rad2deg(pairs).max() < 2.2 * 58.6 / 2**level
    expected = healpix.convert(level, healpix.neighbours(level, every(level), "nest").clamp(min=0), "nest", order)
    assert torch.equal(table[healpix.convert(level, every(level), "nest", order)],
                       expected.masked_fill(healpix.neighbours(level, every(level), "nest") < 0, -1))


def test_neighbours_inside_a_face_follow_the_directions():
    x = torch.tensor([1, 0, 0, 1, 2, 2, 2, 1, 0])   # pixel (1, 1), then SW, W, NW, N, NE, E, SE, S of it
    y = torch.tensor([1, 1, 2, 2, 2, 1, 0, 0, 0])
    numbers = (3 - x) * 4 + 3 - y
    assert healpix.neighbours(2, numbers[:1]).tolist() == [numbers[1:].tolist()]


@pytest.mark.parametrize("call", [
    lambda: healpix.npix(-1), lambda: healpix.npix(30), lambda: healpix.nest_of_padxy(30),
    lambda: healpix.convert(1, torch.tensor([48]), "nest", "ring"),
    lambda: healpix.convert(1, torch.tensor([-1]), "nest", "ring"),
    lambda: healpix.convert(1, torch.tensor([1.0]), "nest", "ring"),
    lambda: healpix.convert(1, torch.tensor([1]), "NEST", "ring"),
    lambda: healpix.convert(1, torch.tensor([1]), "xy", ""),
    lambda: healpix.pix2ang(0, torch.tensor([12])), lambda: healpix.pix2ang(30, torch.tensor([0])),
    lambda: healpix.pix2ang(0, torch.tensor([0]), "peano"),
    lambda: healpix.ang2pix(2, torch.tensor([0.0]), torch.tensor([90.001])),
    lambda: healpix.ang2pix(2, torch.tensor([0.0]), torch.tensor([-91.0])),
    lambda: healpix.ang2pix(2, torch.tensor([0.0]), torch.tensor([math.nan])),
    lambda: healpix.ang2pix(2, torch.tensor([math.inf]), torch.tensor([0.0])),
    lambda: healpix.ang2pix(2, torch.zeros(2), torch.zeros(3)),
    lambda: healpix.ang2pix(-1, torch.zeros(2), torch.zeros(2)),
    lambda: healpix.parent(2, torch.tensor([0]), up=3), lambda: healpix.parent(2, torch.tensor([0]), up=-1),
    lambda: healpix.parent(2, torch.tensor([192])), lambda: healpix.neighbours(1, torch.tensor([48])),
    lambda: healpix.neighbours(1, torch.tensor([-1])), lambda: healpix.reorder(torch.zeros(47), "nest", "ring"),
    lambda: healpix.reorder(torch.zeros(48), "nest", "spiral"),
    lambda: healpix.reorder(torch.zeros(48), "nest", "ring", 1),
    lambda: healpix.reorder(torch.tensor(1.0), "nest", "ring"),
    lambda: healpix.reorder(torch.zeros(0), "nest", "ring")])
def test_refused(call):
    with rejected():
        call()
