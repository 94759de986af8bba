# SPDX-License-Identifier: Apache-2.0
"""What the network of demo/north_america reads and gives, in Python: fields, climatology, and the packing of reports.

The same as halcyon/assimilation makes in C++ (regional_system.cpp, surface_encoder.cpp, regional_model.cpp), so that a
model trained on it can be used by `halcyon analyze`; tests/python/test_examples.py compares the two."""

import math
import pathlib

import netCDF4
import numpy as np
import torch

import halcyon

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo" / "north_america"
AGES = torch.tensor([0, 6, 12, 18])  # hours; `ages` of system.yaml


def calendar(seconds):
    """The hour in turns of a day, and days since 1 January 00 UTC with their fraction."""
    times = seconds.numpy().astype("M8[s]")
    days = (times - times.astype("M8[Y]")) / np.timedelta64(86400, "s")
    return (seconds % 86400).double() / 86400, torch.from_numpy(days)


class Fields:
    """The gridded truth, the climatology of 2013 and departures from it: RegionalSystem::from_config in Python."""

    def __init__(self, path=DEMO / "data" / "air_temperature.nc"):
        with netCDF4.Dataset(path) as file:
            self.air = torch.from_numpy(file["air"][:].filled(np.nan).astype(np.float32)).double()
            hours = np.datetime64("1800-01-01T00", "h") + file["time"][:].filled().astype(np.int64)
            self.north, self.west = float(file["lat"][0]), float(file["lon"][0])
        self.times = torch.from_numpy(hours.astype("M8[s]").astype(np.int64))
        train = self.times < 1388534400  # 2013; nothing of 2014 trains or normalises anything
        self.climatology = torch.empty_like(self.air)
        phase = 2 * math.pi * (calendar(self.times)[1].floor() + 1) / 365
        waves = torch.stack([torch.ones_like(phase), phase.cos(), phase.sin(), (2 * phase).cos(), (2 * phase).sin()], 1)
        for hour in AGES * 3600:
            rows = self.times % 86400 == hour
            fit = torch.linalg.lstsq(waves[rows & train], self.air[rows & train].flatten(1), driver="gelsd").solution
            self.climatology[rows] = (waves[rows] @ fit).view(-1, *self.air.shape[1:])
        self.departures = self.air - self.climatology
        self.spread = self.departures[train].square().mean(0).sqrt()
        self.train, self.held_out = train.nonzero().flatten()[3:], (~train).nonzero().flatten()[3:]

    def at(self, fields, lat, lon):
        """Bilinear values of (B, T, rows, columns) at places (B, N): (B, T, N); NaN beyond the grid's outer cells."""
        row, column = (self.north - lat) / 2.5, (lon % 360 - self.west) / 2.5
        places = torch.stack([column / 26 - 1, row / 12 - 1], -1).unsqueeze(1)  # -1 to 1 over 53 columns and 25 rows
        values = torch.nn.functional.grid_sample(fields, places, padding_mode="border", align_corners=True).squeeze(2)
        outside = (row < -0.5) | (row > 24.5) | (column < -0.5) | (column > 52.5)
        return values.masked_fill(outside.unsqueeze(1), math.nan)


class Inputs:
    """What HealDA reads of a set of reports: surface_encoder.cpp and regional_model.cpp in Python."""

    def __init__(self, fields, config):
        self.level, self.region = config["level_model"], torch.tensor(config["region"])
        up = config["level_in"] - self.level
        face_row, column = self.region >> self.level, self.region % 2**self.level
        i = torch.arange(2**up)
        rows, columns = face_row[:, None, None] * 2**up + i[:, None], column[:, None, None] * 2**up + i
        self.pixels = (rows * 2**config["level_in"] + columns).flatten().sort().values  # the tokens' descendants
        nested = halcyon.healpix.convert(config["level_in"], self.pixels, "pad_xy", "nest")
        self.places = nested.argsort().argsort()  # of the pixels in products, which ascend in nested order
        self.centres = halcyon.healpix.pix2ang(self.level, self.region)
        self.lon, self.lat = halcyon.healpix.pix2ang(config["level_in"], self.pixels)
        spread = fields.at(fields.spread[None, None], self.lat[None], self.lon[None])[0, 0]
        self.inside = ~spread.isnan()  # pixels of the grid, which alone count in the loss
        self.spread = torch.where(self.inside, spread, fields.spread.mean()).float()
        lat, lon = self.lat.deg2rad(), self.lon.deg2rad()
        self.static = torch.stack([self.spread / fields.spread.mean(), lat.sin(), lon.sin(), lon.cos()]).float()

    def features(self, seconds, lat, lon, row, column):
        """Place and clock, (B, N, 27)."""
        day, year = calendar(seconds)
        waves = [f(k * math.pi * z) for z in (row, column) for k in (0.5, 1.0, 1.5) for f in (torch.sin, torch.cos)]
        place = waves + [row, column, row * row, column * column, row * column]
        sphere = [f(angle.deg2rad()) for angle in (lat, lon) for f in (torch.sin, torch.cos)]
        turns = [day[:, None].expand_as(lat), ((year + 1) / 365.25)[:, None].expand_as(lat), day[:, None] + lon / 360]
        clock = [f(2 * math.pi * turn) for turn in turns for f in (torch.sin, torch.cos)]
        return torch.stack(place + sphere + clock, -1)

    def __call__(self, seconds, lat, lon, departure, error_sd, spread, age):
        """Arguments of HealDA.forward, for analyses at `seconds` (B,) of reports (B, N); ages in hours."""
        size, tokens = len(seconds), len(self.region)
        fine = halcyon.healpix.ang2pix(self.level + 10, lon, lat)  # places inside a token: a thousand steps a side
        token = torch.searchsorted(self.region, halcyon.healpix.parent(self.level + 10, fine, up=10))
        row, column = (1 - (2 * (z % 1024).double() + 1) / 1024 for z in (fine >> (self.level + 10), fine))
        expected = (error_sd**2 + spread**2).sqrt()
        bumps = [(1 - (age / 6 - k).abs()).clamp(min=0) for k in range(4)]
        quality = [(error_sd / expected)**2, error_sd.log(), spread.log(), error_sd / 2]
        how_old = [*bumps, age / 24, (age / 24)**2]
        reports = [self.features(seconds, lat, lon, row, column), torch.stack(quality + how_old, -1),
                   torch.zeros(*lat.shape, 1)]
        # a row without a value for every token, so that a token without reports knows its place
        lon, lat = (z.expand(size, -1) for z in self.centres)
        marks = [self.features(seconds, lat, lon, torch.zeros_like(lat), torch.zeros_like(lat)),
                 torch.zeros(size, tokens, 10), torch.ones(size, tokens, 1)]
        features = torch.cat([torch.cat(reports, -1), torch.cat(marks, -1)], 1).float()
        values = torch.cat([departure / expected, torch.zeros(size, tokens)], 1).float()
        channel = torch.cat([torch.zeros_like(token), torch.ones(size, tokens, dtype=torch.int64)], 1)
        pixel = torch.cat([token, torch.arange(tokens).expand(size, -1)], 1) + tokens * torch.arange(size)[:, None]
        none = torch.zeros(values.numel(), dtype=torch.int64)
        context = halcyon.prepare_obs_context(values.flatten(), features.flatten(0, 1), none, channel.flatten(), none,
                                              pixel.flatten(), size * tokens)
        day, year = calendar(seconds)
        clock = torch.stack([f(2 * math.pi * turn) for turn in (day, year / 365.25) for f in (torch.sin, torch.cos)], 1)
        x = torch.cat([self.static.expand(size, -1, -1), clock.float()[..., None].expand(-1, -1, len(self.pixels))], 1)
        date = torch.zeros(size, 1)  # the model's own calendar is held at one date
        return x.unsqueeze(2), torch.zeros(size), date, date, context

    def analyse(self, model, reports):
        """Departures (B, pixels) from the climatology, K."""
        return model(*self(**reports)).flatten(1) * self.spread
