# SPDX-License-Identifier: Apache-2.0
"""Float metadata in its three layouts, local solar time and quality control, against the rules written out."""

import math

import pytest
import torch
from references import rejected

import halcyon

NAMES = ("lon", "lat", "height", "pressure", "scan_angle", "sat_zenith_angle", "sol_zenith_angle")
NAN = math.nan


def rows(n=40):
    """Conventional and satellite rows in turn; the columns that do not apply are NaN."""
    generator = torch.Generator().manual_seed(3)

    def uniform(low, high):
        return low + (high - low) * torch.rand(n, generator=generator)

    x = dict(target_time_sec=1640995200 + torch.randint(0, 10**7, (n,), generator=generator), lon=uniform(-180, 360),
             lat=uniform(-90, 90), height=uniform(-500, 70000), pressure=uniform(0, 1200), scan_angle=uniform(-55, 55),
             sat_zenith_angle=uniform(0, 70), sol_zenith_angle=uniform(0, 180))
    x["time_ns"] = x["target_time_sec"] * 10**9 + torch.randint(-10**14, 10**14, (n,), generator=generator)
    x["height"][1::2] = x["pressure"][1::2] = NAN
    for name in NAMES[4:]:
        x[name][0::2] = NAN
    return x


def solar(x):
    seconds = (x["time_ns"] // 10**9) % 86400
    return (seconds.double() / 3600 + x["lon"].double() / 15) % 24


def fo(x, n):
    return [(k * x).sin() for k in range(1, n + 1)] + [(k * x).cos() for k in range(1, n + 1)]


def reference(x, layout):
    tau, degrees = 2 * math.pi, math.pi / 180
    d = {name: x[name].double() for name in NAMES}
    dt = (x["time_ns"] - x["target_time_sec"] * 10**9).double() * 1e-9 / 86400
    day, height, pressure = solar(x) / 24, (d["height"] / 60000).clamp(0, 1), (d["pressure"] / 1100).clamp(0, 1)
    scan, sat, sol = (d[name] for name in NAMES[4:])
    start = fo(tau * day, 2) + [dt, dt**2]
    if layout == 28:
        parts = start + fo(tau * height, 4) + fo(tau * pressure, 4) + [scan / 50, (scan / 50) ** 2]
        parts += [(sat * degrees).cos(), (sat * degrees).cos() ** 2, (sol * degrees).cos(), (sol * degrees).sin()]
        return torch.stack(parts, 1).nan_to_num(0.0)
    start += [dt.sin(), dt.cos(), (d["lat"] * degrees).sin(), (d["lat"] * degrees).cos()]
    satellite = torch.stack(fo(tau * scan / 50, 3) + fo(tau * sat / 90, 4) + fo(tau * sol / 180, 3), 1)
    conventional = torch.stack(fo(tau * height, 5) + fo(tau * pressure, 5), 1)
    is_conventional = ~x["height"].isnan()[:, None]
    if layout == 30:
        return torch.cat([torch.stack(start, 1), torch.where(is_conventional, conventional, satellite)], 1)
    return torch.cat([torch.stack(start, 1), satellite.masked_fill(is_conventional, 0),
                      conventional.masked_fill(~is_conventional, 0)], 1)


@pytest.mark.parametrize("layout", [28, 30, 50])
@pytest.mark.parametrize("n", [0, 1, 40, 1000])
def test_float_metadata(layout, n):
    x = rows(n)
    found = halcyon.float_metadata(**x, layout=layout)
    assert found.dtype == torch.float32 and found.shape == (n, layout)
    torch.testing.assert_close(found.double(), reference(x, layout), rtol=1e-5, atol=1e-5)
    assert torch.equal(found, halcyon.float_metadata(**x, layout=layout))


def test_default_layout_and_strides():
    x = rows()
    strided = {name: torch.stack([t, t], 1)[:, 0] for name, t in x.items()}
    assert torch.equal(halcyon.float_metadata(**x), halcyon.float_metadata(**strided, layout=30))


def test_missing_values():
    """Layout 28 replaces NaN by 0; layout 30 keeps it where a column that applies is missing."""
    x = rows(2)
    x["pressure"][0] = x["scan_angle"][1] = NAN
    assert halcyon.float_metadata(**x, layout=28).isfinite().all()
    extended = halcyon.float_metadata(**x, layout=30)
    assert extended[0, 20:30].isnan().all() and extended[0, :20].isfinite().all()
    assert extended[1, 10:16].isnan().all() and extended[1, 16:].isfinite().all()


def test_time_differences_are_exact_to_the_nanosecond():
    x = rows(2)
    x["time_ns"] = x["target_time_sec"] * 10**9 + torch.tensor([1, -1])
    dt = halcyon.float_metadata(**x)[:, 4].double()
    torch.testing.assert_close(dt, torch.tensor([1e-9, -1e-9]).double() / 86400, rtol=1e-5, atol=0)


def test_local_solar_time():
    x = rows(200)
    hours = halcyon.local_solar_time(x["lon"], x["time_ns"])
    assert hours.min() >= 0 and hours.max() < 24
    difference = (hours.double() - solar(x) + 12) % 24 - 12
    assert difference.abs().max() < 1e-5
    edge = halcyon.local_solar_time(lon=torch.tensor([-1e-7, 0.0, 360.0]), time_ns=torch.tensor([0, -1, 0]))
    assert (edge >= 0).all() and (edge < 24).all()
    assert abs(edge[1].item() - 86399 / 3600) < 1e-5


@pytest.mark.parametrize("change", [
    dict(layout=29), dict(layout=0), dict(layout=-1), dict(height=torch.zeros(40).long()),
    dict(time_ns=torch.zeros(40)), dict(target_time_sec=torch.zeros(40)),
    dict(lon=torch.zeros(39)), dict(lat=torch.zeros(40, 1)),
    dict(time_ns=torch.zeros(39).long())],
    ids=lambda c: " ".join(f"{k}={list(v.shape) if isinstance(v, torch.Tensor) else v}" for k, v in c.items()))
def test_float_metadata_refuses(change):
    with rejected():
        halcyon.float_metadata(**(rows() | change))


@pytest.mark.parametrize("lon, time", [(torch.zeros(2), torch.zeros(3).long()), (torch.zeros(2), torch.zeros(2)),
                                       (torch.zeros(2).long(), torch.zeros(2).long())])
def test_local_solar_time_refuses(lon, time):
    with rejected():
        halcyon.local_solar_time(lon, time)


def test_wrong_shapes_are_value_errors():
    with pytest.raises(ValueError, match=r"^\[float_metadata\] expected lat"):
        halcyon.float_metadata(**(rows() | dict(lat=torch.zeros(40, 1))))
    with pytest.raises(ValueError, match=r"^\[local_solar_time\] expected time_ns"):
        halcyon.local_solar_time(torch.zeros(2), torch.zeros(3).long())
