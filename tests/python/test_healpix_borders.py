# SPDX-License-Identifier: Apache-2.0
"""The pixel finder against astropy-healpix at every border of faces, corner, pole and seam, at all levels."""

import astropy.units as u
import astropy_healpix
import numpy as np
import pytest
import torch

from halcyon import healpix

LEVELS = range(30)
NEAR = 3e-12   # degrees: what rounding may move a point by


def astropy_pixels(level, lon, lat):
    grid = astropy_healpix.HEALPix(2**level, order="nested")
    return np.asarray(grid.lonlat_to_healpix(lon * u.deg, np.clip(lat, -90, 90) * u.deg))


def right(level, lon, lat, pix, spread=NEAR):
    """Where pix is astropy's pixel of the point, or of a point within rounding of it."""
    good = np.zeros(lon.shape, bool)
    for x in (0, -spread, spread):
        for y in (0, -spread, spread):
            good |= pix == astropy_pixels(level, lon + x, lat + y)
    for turn in (90, 180, 270):   # at a pole all meridians meet
        good |= (np.abs(lat) == 90) & (pix == astropy_pixels(level, lon + turn, lat))
    return good


def on_borders():
    """(lon, lat) of points on borders of faces: meridians of the caps, diagonals of the belt, corners, poles."""
    part = np.linspace(0, 1, 9)
    points = []
    for quarter in range(4):
        east = 90.0 * quarter
        for pole in (1, -1):
            cap = np.degrees(np.arcsin(2 / 3)) * (1 - part) + 90 * part
            points.append((np.full(9, east), pole * cap))
            points.append((np.array([east, east + 45, east + 89.9]), np.full(3, 90.0 * pole)))
            # from the corner (east, 41.8) down to (east + 45, 0), and up again
            slope = np.degrees(np.arcsin(2 / 3 * (1 - part)))
            points += [(east + 45 * part, pole * slope), (east + 90 - 45 * part, pole * slope)]
    points.append((np.arange(0, 360, 45.0), np.zeros(8)))
    return np.concatenate([p[0] for p in points]), np.concatenate([p[1] for p in points])


def around(lon, lat):
    """The same points and their surroundings, from far below rounding to a degree."""
    steps = [0, 1e-300, 1e-14, 1e-13, 1e-11, 1e-9, 1e-6, 1e-3, 1]
    steps = np.array([0.0] + [sign * s for s in steps[1:] for sign in (1, -1)])
    x, y = np.meshgrid(steps, steps)
    lons, lats = lon[:, None] + x.ravel(), lat[:, None] + y.ravel()
    return lons.ravel(), np.clip(lats.ravel(), -90, 90)


def found(level, lon, lat):
    return healpix.ang2pix(level, torch.from_numpy(lon), torch.from_numpy(lat), "nest").numpy()


@pytest.mark.parametrize("level", LEVELS)
def test_borders_of_faces(level):
    lon, lat = around(*on_borders())
    pix = found(level, lon, lat)
    bad = np.nonzero(~right(level, lon, lat, pix))[0]
    assert not len(bad), [(lon[i], lat[i], pix[i]) for i in bad[:5]]


@pytest.mark.parametrize("level", LEVELS)
def test_seams_and_turns(level):
    lats = np.array([90, -90, 89.9999999, -89.9999999, 66.6, 41.82, 41.81, 0.3, 0, -0.0, -41.82, -66.6])
    lons = np.array([-1e-9, -1e-12, -1e-14, -1e-300, -5e-324, -0.0, 0, 5e-324, 1e-300, np.nextafter(360, 0), 360,
                     720.5, np.nextafter(90, 0), np.nextafter(90, 91), np.nextafter(270, 0), -90, -180, -270, -360,
                     180, 540, -45.5])
    lon, lat = (a.ravel() for a in np.meshgrid(lons, lats))
    assert right(level, lon, lat, found(level, lon, lat)).all()
    # many turns: the remainder is exact, so that the same point gives the same pixel
    inside = np.arange(0, 360, 11.25)
    lon, lat = (a.ravel() for a in np.meshgrid(inside, lats))
    for turns in (-1, 1, 2, -3, 2777, -100000):
        assert (found(level, lon + 360.0 * turns, lat) == found(level, lon, lat)).all(), turns


@pytest.mark.parametrize("level", LEVELS)
def test_points_anywhere(level):
    rng = np.random.default_rng(level)
    lon, lat = rng.uniform(-720, 720, 20000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20000)))
    assert right(level, lon, lat, found(level, lon, lat)).all()


@pytest.mark.parametrize("level", LEVELS)
def test_centres_and_float32(level):
    rng = np.random.default_rng(level)
    grid = astropy_healpix.HEALPix(2**level, order="nested")
    pix = rng.integers(0, 12 * 4**level, 2000)
    lon, lat = grid.healpix_to_lonlat(pix)
    assert (found(level, lon.deg, lat.deg) == pix).all()
    # single precision is taken for what it is
    one, other = lon.deg.astype(np.float32), lat.deg.astype(np.float32)
    edge = [np.nextafter(np.float32(360), np.float32(0)), -1e-8, -1e-30, 359.99997, 90, -90, 0, 270]
    one = np.concatenate([one, np.float32(edge)])
    other = np.concatenate([other, np.float32([66.6, 89, -66.6, 41, 41, 66.6, 90, -41])])
    single = found(level, one, other)
    assert (single == found(level, one.astype(float), other.astype(float))).all()
    assert right(level, one.astype(float), other.astype(float), single).all()
    # and beside the other in double precision, even as a single number
    number = torch.tensor(float(lat.deg[0]), dtype=torch.float64)
    mixed = healpix.ang2pix(level, torch.from_numpy(one), number, "nest").numpy()
    assert (mixed == found(level, one.astype(float), np.full(one.shape, float(number)))).all()


def test_which_side_a_border_belongs_to():
    """The same as the C++ HEALPix library: east of the meridians, and of a pole the quarter of the longitude."""
    lon, lat = np.array([0, 90, 180, 270, 360, -90.0]), np.full(6, 66.6)
    for pole in (1, -1):
        face = (np.array([0, 1, 2, 3, 0, 3])) + (0 if pole > 0 else 8)
        for level in (0, 1, 7, 29):
            assert (found(level, lon, pole * lat) >> 2 * level == face).all()
            assert (found(level, lon, np.full(6, 90.0 * pole)) >> 2 * level == face).all()
    # just west of a meridian is west of it, however close
    assert (found(29, np.array([-1e-300, -5e-324, np.nextafter(90, 0)]), np.full(3, 66.6)) >> 58 == [3, 3, 0]).all()
    # corners of four faces in the belt: the eastern one
    assert (found(0, np.array([45.0, 135, 225, 315]), np.zeros(4)) == [5, 6, 7, 4]).all()


def test_rules_have_names():
    lon, lat = torch.tensor([270.0]), torch.tensor([70.0])
    standard = healpix.ang2pix(2, lon, lat)
    assert torch.equal(healpix.ang2pix(2, lon, lat, rule="standard"), standard)
    # the data pipe's pixel is at the other side of its face
    released = healpix.ang2pix(2, lon, lat, rule="healda")
    apart = healpix.pix2ang(2, released)[0] - 270
    assert abs(healpix.pix2ang(2, standard)[0] - 270) < 23 and abs(apart) > 23
    with pytest.raises(ValueError, match="standard or healda"):
        healpix.ang2pix(2, lon, lat, rule="healpy")


@pytest.mark.parametrize("lon, lat", [(0.0, 90.0001), (0.0, -91.0), (np.nan, 0.0), (0.0, np.nan), (np.inf, 0.0),
                                      (-np.inf, 0.0)])
@pytest.mark.parametrize("rule", ["standard", "healda"])
def test_places_that_are_none(lon, lat, rule):
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError):
            healpix.ang2pix(3, torch.tensor([lon], dtype=dtype), torch.tensor([lat], dtype=dtype), rule=rule)
