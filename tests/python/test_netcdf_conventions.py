# SPDX-License-Identifier: Apache-2.0
"""What the program makes of packed numbers and of CF times, beside netCDF4-python, xarray and cftime."""

import csv
import itertools
import subprocess
import warnings

import numpy as np
import pytest
from conftest import BUILD

netCDF4 = pytest.importorskip("netCDF4")
xarray = pytest.importorskip("xarray")
cftime = pytest.importorskip("cftime")

PROGRAM = BUILD / "bin" / "halcyon"
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}")
START = 1415577600  # 2014-11-10


def write(path, stored, kind, attributes, times=None, time_attributes=None, form="NETCDF4"):
    """Surface reports in the form of MADIS with the temperatures that are stored so."""
    n = len(stored if times is None else times)
    with netCDF4.Dataset(path, "w", format=form) as nc:
        nc.createDimension("recNum", n)
        nc.createDimension("maxStaNamLen", 8)

        def put(name, kind, values, fill=None, **attributes):
            v = nc.createVariable(name, kind, ("recNum",), fill_value=fill)
            v.set_auto_maskandscale(False)
            v.setncatts(attributes)
            v[:] = values

        name = nc.createVariable("stationName", "S1", ("recNum", "maxStaNamLen"))
        for i in range(n):
            name[i] = np.frombuffer(f"{path.stem[-4:]}{i:04}".encode(), "S1")
        put("latitude", "f4", np.full(n, 40), units="degree_north")
        put("longitude", "f4", -100 + 0.5 * np.arange(n), units="degree_east")
        put("elevation", "f4", np.full(n, 100), units="meter")
        if times is None:
            put("timeObs", "f8", np.full(n, START), units="seconds since 1970-1-1 00:00:00.0")
        else:
            put("timeObs", times.dtype.str[1:], times, **time_attributes)
        fill = attributes.get("_FillValue")
        rest = {k: v for k, v in attributes.items() if k != "_FillValue"}
        put("temperature", kind, np.asarray(stored, kind), fill, units="kelvin", **rest)
    return path


def convert(folder, *files):
    """The rows that the program reads, by station."""
    out = folder / "all.csv"
    done = subprocess.run([PROGRAM, "obs", "convert", *files, "-o", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as f:
        return {row["station"]: row for row in csv.DictReader(f)}


INTEGERS = {"i1": [-128, -5, 0, 7, 100, 127], "u1": [0, 5, 7, 100, 200, 250],
            "i2": [-32767, -999, 0, 7, 100, 32767], "u2": [0, 7, 100, 999, 40000, 65534],
            "i4": [-999999, -999, 0, 7, 100, 2147483647], "u4": [0, 7, 100, 999, 70000, 4294967294],
            "i8": [-999999, -999, 0, 7, 100, 2**62 + 1], "u8": [0, 7, 100, 999, 70000, 2**63 + 5]}
FLOATS = {"f4": [-9999.9, -999, 0, 0.5, 100, 1e20], "f8": [-9999.9, -999, 0, 0.5, 100, 1e20]}
SCALES = [{}, {"scale_factor": 0.5}, {"add_offset": 250.0}, {"scale_factor": 0.01, "add_offset": 273.15},
          {"scale_factor": np.float32(0.25), "add_offset": np.float32(10)}, {"scale_factor": -2.0}]


def cases():
    """Stored numbers, their type and attributes that netCDF4-python understands as CF does."""
    for kind, stored in (INTEGERS | FLOATS).items():
        typed = np.dtype(kind).type
        marks = [{}, {"_FillValue": typed(7) if kind in INTEGERS else typed(0.5)}, {"missing_value": typed(100)},
                 {"missing_value": np.asarray([0, 100], kind)}, {"_FillValue": typed(0), "missing_value": typed(100)}]
        ranges = [{}, {"valid_min": typed(7)}, {"valid_max": typed(100)}, {"valid_range": np.asarray([0, 100], kind)}]
        for scale, mark, valid in itertools.product(SCALES, marks, ranges):
            yield stored, kind, scale | mark | valid
    for kind in ("i1", "i2", "i4"):
        stored = np.asarray([0, 7, 100, -1, -56, np.iinfo(kind).min], kind)
        typed = np.dtype(kind).type
        for scale, mark in itertools.product(SCALES, [{}, {"missing_value": typed(7)},
                                                      {"valid_range": np.asarray([0, -2], kind)}]):
            yield stored, kind, {"_Unsigned": "true", "_FillValue": typed(-1)} | scale | mark


@pytest.mark.filterwarnings("ignore")
def test_packing_as_netcdf4_decodes(tmp_path):
    files, expected = [], {}
    for number, (stored, kind, attributes) in enumerate(cases()):
        path = write(tmp_path / f"{number:04}.nc", stored, kind, attributes)
        files.append(path)
        with netCDF4.Dataset(path) as nc:
            v = nc["temperature"]
            missing = np.ma.getmaskarray(np.ma.masked_array(v[:]))
            v.set_auto_maskandscale(False)
            raw = v[:]
        if "_Unsigned" in attributes:
            raw = raw.view("u" + kind[1:])
        # in double: netCDF4 takes the type of the attributes
        values = raw.astype("f8") * float(attributes.get("scale_factor", 1)) + float(attributes.get("add_offset", 0))
        for i in range(len(stored)):
            expected[f"{number:04}{i:04}"] = (None if missing[i] else values[i], attributes, kind)
    assert len(files) > 1000
    rows = convert(tmp_path, *files)
    for station, (value, attributes, kind) in expected.items():
        if value is None:
            assert station not in rows, (station, rows[station]["value"], kind, attributes)
        else:
            assert np.float32(rows[station]["value"]) == np.float32(value), (station, kind, attributes)


@pytest.mark.filterwarnings("ignore")
def test_packing_as_xarray_writes_it(tmp_path):
    truth = np.array([250.0, np.nan, 288.15, 300.0])
    encodings = [{}, {"dtype": "f4", "_FillValue": -9999.9}, {"dtype": "f4", "_FillValue": 1e20}, {"dtype": "f8", "_FillValue": -999.9},
                 {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -32767},
                 {"dtype": "i4", "scale_factor": 0.01, "_FillValue": -2**31},
                 {"dtype": "u2", "scale_factor": 0.01, "_FillValue": 65535},
                 {"dtype": "i2", "scale_factor": 0.001, "add_offset": 250.0, "_FillValue": 65535, "_Unsigned": "true"}]
    files, wanted = [], {}
    for number, encoding in enumerate(encodings):
        names = [f"{number:04}{i:04}" for i in range(4)]
        ds = xarray.Dataset({"temperature": (("time", "station"), truth[None, :], {"units": "K"})},
                            coords={"time": np.array(["2014-11-10"], "M8[ns]"), "station": names,
                                    "lat": ("station", [40.0, 41, 42, 43]), "lon": ("station", [-100.0, -101, -102, -103])})
        path = tmp_path / f"x{number}.nc"
        ds.to_netcdf(path, encoding={"temperature": encoding})
        files.append(path)
        with xarray.open_dataset(path) as back:
            wanted |= dict(zip(names, back["temperature"].values[0]))
    rows = convert(tmp_path, *files)
    assert len(rows) == 3 * len(encodings)
    for station, value in wanted.items():
        assert (station not in rows) if np.isnan(value) else abs(float(rows[station]["value"]) - value) < 2e-4, station
        assert np.isnan(value) or abs(value - truth[int(station[4:])]) < 0.01


UNITS = ["seconds since 1970-1-1 0:0:0", "hours since 1900-01-01T00:00Z", "hours since 1900-01-01 00:00:00 +02:00",
         "hours since 1900-01-01 00:00:00.0", "days since 1-1-1 00:00:00", "Days Since 1900-01-01", "sec since 1970-01-01",
         "secs since 1970-01-01 00:00:00 UTC", "hr since 1900-01-01", "hrs since 1900-01-01", "h since 1900-01-01", "d since 1900-01-01",
         "min since 1970-01-01", "mins since 1970-01-01", "msec since 1970-01-01", "milliseconds since 1970-01-01",
         "microseconds since 1970-01-01", "minutes since 1582-10-04 12:00", "days since 1582-10-15", "hours since 1800-01-01 00:00:0.0",
         "days since 2000-01-01 06:30:15", "seconds since 1970-01-01T00:00:00.000000", "hours since 1858-11-17 00:00:00 -0600"]
CALENDARS = ["standard", "Gregorian", "PROLEPTIC_GREGORIAN", None]


def test_times_as_cftime_decodes(tmp_path):
    when = cftime.datetime(2014, 11, 10, 5, 43, 21, calendar="proleptic_gregorian")
    files, expected = [], {}
    for number, (units, calendar) in enumerate(itertools.product(UNITS, CALENDARS)):
        usual = (calendar or "standard").lower()
        same = cftime.datetime(when.year, when.month, when.day, when.hour, when.minute, when.second, calendar=usual)
        exact = cftime.date2num(same, units, usual)
        values = np.asarray([float(exact), float(exact) + 0.1666667], "f8")
        attributes = {"units": units} | ({"calendar": calendar} if calendar else {})
        files.append(write(tmp_path / f"{number:04}.nc", [280, 281], "f4", {}, values, attributes))
        for i, value in enumerate(values):
            date = cftime.num2date(value, units, usual)
            seconds = np.datetime64("%04d-%02d-%02dT%02d:%02d:%02d" % (date.year, date.month, date.day, date.hour, date.minute, date.second))
            expected[f"{number:04}{i:04}"] = (seconds, date.microsecond, units, calendar)
    rows = convert(tmp_path, *files)
    for station, (seconds, microseconds, *what) in expected.items():
        read = np.datetime64(rows[station]["time"].rstrip("Z"))
        off = (read - seconds) / np.timedelta64(1, "us") - microseconds
        assert abs(off) <= 500001, (station, read, seconds, what)  # whole seconds
        if station.endswith("0000"):
            assert read == np.datetime64("2014-11-10T05:43:21"), what


def test_packed_times(tmp_path):
    path = write(tmp_path / "0000.nc", [280, 281, 282], "f4", {}, np.asarray([0, 6, -1], "i2"),
                 {"units": "hours since 2014-11-10", "scale_factor": 0.5, "add_offset": 1.0, "missing_value": np.int16(-1)})
    rows = convert(tmp_path, path)
    assert [row["time"] for row in rows.values()] == ["2014-11-10T01:00:00Z", "2014-11-10T04:00:00Z", ""]


@pytest.mark.parametrize("attributes, says", [
    ({"units": "months since 2000-01-01"}, "months"), ({"units": "hours from 2000-01-01"}, "hours from 2000-01-01"),
    ({"units": "days since -4713-01-01"}, "-4713-01-01"), ({"units": "days since 1582-10-10"}, "1582"),
    ({"units": "days since 2000-01-01", "calendar": "noleap"}, "noleap"), ({"units": "days since 2000-01-01", "calendar": "NONE"}, "none"),
    ({"units": "days since 2000-01-01", "scale_factor": "2"}, "scale_factor"), ({}, "no units")])
def test_times_that_are_refused(tmp_path, attributes, says):
    path = write(tmp_path / "0000.nc", [280], "f4", {}, np.asarray([1.0]), attributes)
    done = subprocess.run([PROGRAM, "obs", "inspect", path], capture_output=True, text=True)
    assert done.returncode == 4 and says in done.stderr and "timeObs" in done.stderr, done.stderr


@pytest.mark.parametrize("attributes", [
    {"scale_factor": 0.0}, {"scale_factor": np.nan}, {"scale_factor": "0.1"}, {"scale_factor": np.asarray([1.0, 2.0])}, {"add_offset": np.inf},
    {"missing_value": "none"}, {"valid_range": np.asarray([1, 2, 3], "i2")}, {"valid_min": "0"}, {"_Unsigned": "maybe"}])
def test_attributes_that_are_refused(tmp_path, attributes):
    path = write(tmp_path / "0000.nc", [280], "i2", attributes)
    done = subprocess.run([PROGRAM, "obs", "inspect", path], capture_output=True, text=True)
    assert done.returncode == 4 and "temperature" in done.stderr and next(iter(attributes)) in done.stderr, done.stderr


def test_products_are_read_by_others_as_by_us(tmp_path):
    """A converted table, read by xarray and by the program, holds the same rows."""
    path = write(tmp_path / "0000.nc", [280.5, np.nan, 281.25], "f4", {}, np.asarray([0.0, 1, 2]), {"units": "hours since 2014-11-10"})
    table = tmp_path / "table.nc"
    subprocess.run([PROGRAM, "obs", "convert", path, "-o", table], check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_dataset(table) as ds:
            assert ds["value"].values.tolist() == [280.5, 281.25]
            assert ds["time_ns"].values.astype("M8[s]").astype(str).tolist() == ["2014-11-10T00:00:00", "2014-11-10T02:00:00"]
            again = tmp_path / "again.nc"
            ds.to_netcdf(again)
    assert convert(tmp_path, table) == convert(tmp_path, again)
