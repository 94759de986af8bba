# SPDX-License-Identifier: Apache-2.0
"""A training step on a mesh of data, context and domain ranks is that of one process: loss, every gradient, the weights
after AdamW and SGD. Largest differences seen are printed (-s)."""

import contextlib
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import halcyon
from halcyon import parallel
from meshes import Mesh, after_a_step, assert_same_step, difference, even
from ranks import on_ranks, returned
from references import SMALL_MODEL, randomise
from whole import random

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


def named(mesh):
    return "x".join(str(size) for size in mesh.values())


# ---- a convolutional model, data x domain

ROWS, COLUMNS, SAMPLES = 20, 4, 5
CUT_SAMPLES = {1: [5], 2: [4, 1], 3: [1, 3, 1], 4: [2, 0, 2, 1]}
CUT_ROWS = {1: [20], 2: [13, 7], 3: [3, 17, 0], 4: [6, 1, 0, 13]}
CONV_MESHES = [dict(data=data, domain=domain)
               for data, domain in [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1), (1, 4), (4, 1), (2, 4), (4, 2)]]


class Longitudes(nn.Module):
    """A column more on either side, round the circle; poles stay as they are."""

    def forward(self, x):
        return torch.cat([x[..., -1:], x, x[..., :1]], -1)


class Net(nn.Module):
    """Two levels down and up, with skips, and norms over channels' groups, the batch and all positions."""

    def __init__(self, batch_norm):
        super().__init__()
        self.inward = nn.Sequential(Longitudes(), nn.Conv2d(2, 6, 3, padding=(1, 0), bias=False),
                                    nn.BatchNorm2d(6) if batch_norm else nn.GroupNorm(2, 6), nn.SiLU())
        self.same = nn.Sequential(nn.Conv2d(6, 6, 5, padding="same", padding_mode="circular", bias=False),
                                  nn.SiLU())
        self.down = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, 8), nn.GELU())
        self.deep = nn.Sequential(Longitudes(), nn.Conv2d(8, 8, 3, stride=2, padding=(1, 0)),
                                  nn.LayerNorm([8, ROWS // 4, COLUMNS // 4]), nn.GELU(),
                                  nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 8, 3, padding=1))
        self.up = nn.ConvTranspose2d(16, 6, 4, stride=2, padding=1)
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        x = self.inward(x)
        y = self.down(x + self.same(x))
        return self.out(torch.sin(self.up(torch.cat([y, self.deep(y)], 1))))


def net(batch_norm, dtype, seed=5):
    return randomise(Net(batch_norm).to(dtype), 0.2, seed)


def images(dtype):
    """With means: gradients that all but cancel would be rounding."""
    x, target = (random(SAMPLES, n, ROWS, COLUMNS, seed=n, dtype=dtype) for n in (2, 3))
    return x + 0.5, target + 2


@functools.cache
def conv_step(batch_norm, dtype):
    model, (x, target) = net(batch_norm, dtype), images(dtype)
    loss = (model(x) - target).square().mean()
    loss.backward()
    return after_a_step(model, loss)


def shares(mesh, sizes, rows, dtype):
    """This rank's samples and rows of the images; those of the target as the last layers cut them."""
    x, target = (one[mesh.own(sizes, "data")] for one in images(dtype))
    return x[:, :, mesh.own(rows, "domain")], target[:, :, mesh.own(even(ROWS, mesh.size["domain"]), "domain")]


def summed_conv_step(mesh, sizes, rows, dtype, without=None):
    """BatchNorm couples the samples, so every rank's loss is its share of the whole's; one sum over all ranks."""
    mesh = Mesh(**mesh)
    model, everyone, domain = net(True, dtype), mesh.group("data", "domain"), mesh.group("domain")
    model.inward[2], _ = parallel.convert(model.inward[2], domain if without == "statistics" else everyone)
    model, report = parallel.convert(model, domain)
    assert len(report.converted) == 9, report
    x, target = shares(mesh, sizes, rows, dtype)
    loss = (model(x) - target).square().sum() / (SAMPLES * 3 * ROWS * COLUMNS)
    loss.backward()
    parallel.reduce_gradients(model, {"data": domain, "domain": mesh.group("data")}.get(without, everyone))
    return after_a_step(model, loss)


def wrapped_conv_step(mesh, sizes, rows, dtype, without=None):
    """DataParallel weights the means of the ranks' samples; to each the domain ranks contribute their rows."""
    mesh = Mesh(**mesh)
    model, _ = parallel.convert(net(False, dtype, 5 + mesh.index["data"]), mesh.group("domain"))
    model = parallel.DataParallel(model, mesh.group("data"))  # begins with the weights of data rank 0
    x, target = shares(mesh, sizes, rows, dtype)
    if without != "weight":
        model.sample_count = len(x)
    loss = (model(x) - target).square().sum() / (max(len(x), 1) * 3 * ROWS * COLUMNS)
    loss.backward()
    if without != "domain":
        parallel.reduce_gradients(model, mesh.group("domain"))
    return after_a_step(model.module, loss * len(x) / SAMPLES)


CONV_STEPS = [summed_conv_step, wrapped_conv_step]


@DTYPES
@pytest.mark.parametrize("step", CONV_STEPS)
@pytest.mark.parametrize("mesh", CONV_MESHES, ids=named)
def test_convolutional_model(mesh, step, dtype):
    alone = functools.partial(conv_step, step is summed_conv_step)
    for samples, rows in ((even(SAMPLES, mesh["data"]), even(ROWS, mesh["domain"])),
                          (CUT_SAMPLES[mesh["data"]], CUT_ROWS[mesh["domain"]])):
        assert_same_step(mesh, alone, step, samples, rows, dtype=dtype)


# ---- HealDA, data x context

HEALDA_MESHES = [dict(data=data, context=context)
                 for data, context in [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1), (1, 4), (4, 1), (2, 4), (4, 2)]]
OUT, LEVEL, TOKENS = 3, 1, 12
PIXELS = halcyon.healpix.npix(LEVEL)


def healda(frames, dtype, seed=5, **options):
    options = dict(level_in=LEVEL, level_model=0, time_length=frames, condition_dim=3) | options
    return randomise(halcyon.HealDA(**(SMALL_MODEL | options)).to(dtype), 0.15, seed)


def windows(samples, frames, dtype):
    """What the whole batch is given, and what is wanted of it."""
    times = [random(samples, frames, seed=seed).abs().mul(1e4).remainder(most).floor().to(dtype)
             for seed, most in ((3, 86400), (4, 365))]
    return dict(x=random(samples, 2, frames, PIXELS, seed=1, dtype=dtype), t=random(samples, seed=2, dtype=dtype).abs(),
                second_of_day=times[0], day_of_year=times[1], labels=random(samples, 3, seed=5, dtype=dtype),
                target=random(samples, OUT, frames, PIXELS, seed=6, dtype=dtype) + 1)


def observations(samples, frames, own, here, dtype, count=600):
    """Those of some samples (own) and frames (here), packed for them; the whole's are not spread evenly."""
    generator = torch.Generator().manual_seed(3)
    obs, meta = random(count, seed=7, dtype=dtype), random(count, 6, seed=8, dtype=dtype)
    ids = [torch.randint(60, (count,), generator=generator) for _ in range(3)]
    b, t, pixel = (torch.rand(count, generator=generator).square().mul(n).long() for n in (samples, frames, TOKENS))
    kept = (own.start <= b) & (b < own.stop) & (here.start <= t) & (t < here.stop)
    flat = (((b - own.start) * (here.stop - here.start) + t - here.start) * TOKENS + pixel)[kept]
    return halcyon.prepare_obs_context(obs[kept], meta[kept], *[one[kept] for one in ids], flat,
                                       (own.stop - own.start) * (here.stop - here.start) * TOKENS)


def analysed(model, given, own, here, x=None):
    samples, frames = given["second_of_day"].shape
    x = given["x"][own, :, here] if x is None else x
    return model(x, given["t"][own], given["second_of_day"][own, here], given["day_of_year"][own, here],
                 observations(samples, frames, own, here, x.dtype), given["labels"][own])


@functools.cache
def healda_step(samples, frames, dtype):
    model, given = healda(frames, dtype), windows(samples, frames, dtype)
    loss = (analysed(model, given, slice(0, samples), slice(0, frames)) - given["target"]).square().mean()
    loss.backward()
    return after_a_step(model, loss)


def parallel_healda_step(mesh, mode, sizes, frame_sizes, micro_batches, dtype, without=None):
    """Each rank has some samples and some of their frames. micro_batches: its samples come in so many parts."""
    mesh = Mesh(**mesh)
    samples, frames = sum(sizes), sum(frame_sizes)
    model = parallel.DataParallel(healda(frames, dtype, 5 + mesh.index["data"]), mesh.group("data"))
    model.module.set_context_parallel(mode, mesh.group("context"))
    given, own, here = windows(samples, frames, dtype), mesh.own(sizes, "data"), mesh.own(frame_sizes, "context")
    mine, total = own.stop - own.start, 0.0
    if without != "weight":
        model.sample_count = mine
    for i, part in enumerate(torch.arange(own.start, own.stop).tensor_split(micro_batches)):
        some = slice(int(part[0]), int(part[-1]) + 1)
        with model.no_sync() if i + 1 < micro_batches else contextlib.nullcontext():
            error = analysed(model, given, some, here) - given["target"][some, :, here]
            loss = error.square().sum() / (mine * OUT * frames * PIXELS)
            loss.backward()
        total = total + loss.detach()
    if without != "context":
        parallel.reduce_gradients(model, mesh.group("context"))
    return after_a_step(model.module, total * mine / samples)


CUT_FRAMES = {1: [5], 2: [4, 1], 3: [2, 0, 3], 4: [1, 3, 0, 1]}


@DTYPES
@pytest.mark.parametrize("mode", ["all_to_all", "redistribute"])
@pytest.mark.parametrize("mesh", HEALDA_MESHES, ids=named)
def test_healda(mesh, mode, dtype):
    data, context = mesh.values()
    samples = {1: [3], 2: [2, 1], 3: [1, 2, 1], 4: [1, 2, 1, 1]}[data]
    for frames in [[2] * context] if mode == "all_to_all" else [even(5, context), CUT_FRAMES[context]]:
        assert_same_step(mesh, functools.partial(healda_step, sum(samples), sum(frames)), parallel_healda_step, mode,
                         samples, frames, 1, dtype=dtype)


@DTYPES
@pytest.mark.parametrize("mesh", [dict(data=1, context=2), dict(data=2, context=1), dict(data=2, context=2),
                                  dict(data=2, context=4)], ids=named)
def test_healda_in_micro_batches(mesh, dtype):
    samples = {1: [3], 2: [3, 2]}[mesh["data"]]
    assert_same_step(mesh, functools.partial(healda_step, sum(samples), 5), parallel_healda_step, "redistribute",
                     samples, even(5, mesh["context"]), 2, dtype=dtype)


# ---- all three: a HealDA between domain-parallel convolutions on faces

MIXED = [dict(data=data, context=context, domain=domain) for data, context, domain in
         [(1, 1, 1), (1, 1, 3), (2, 1, 2), (1, 2, 2), (2, 2, 1), (2, 2, 2), (1, 2, 4), (1, 4, 2), (4, 1, 2)]]
CUT_FACES = {1: [12], 2: [5, 7], 3: [4, 0, 8], 4: [1, 6, 0, 5]}


class Faces(nn.Module):
    """A convolution on the sphere's faces and a norm over each frame: (B, T, pixels, C), pixels in whole faces."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3), nn.GroupNorm(1, outputs)
        self.domain = None

    def forward(self, x):
        y = x.unflatten(2, (-1, 2**LEVEL, 2**LEVEL)).movedim(-1, 3).flatten(0, 1)
        y = parallel.healpix_pad(y, 1, self.domain)
        y = self.conv(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        return F.silu(self.norm(y.transpose(1, 2))).movedim(1, -1).flatten(1, 3).unflatten(0, x.shape[:2])

    def cut(self, domain):
        self.domain = domain
        self.norm, _ = parallel.convert(self.norm, domain, dim=2)


class Mixed(nn.Module):
    def __init__(self, frames, dtype, seed=5):
        super().__init__()
        self.encoder, self.decoder = Faces(2, 4), Faces(OUT, OUT)
        self.analysis = healda(frames, dtype, in_channels=4)
        randomise(self.to(dtype), 0.15, seed)

    def forward(self, x, given, own, here, inward=lambda y: y, outward=lambda y: y):
        """x (B, T, pixels, C). inward makes whole frames (here) of the encoder's part, outward the decoder's part of
        those."""
        y = analysed(self.analysis, given, own, here, inward(self.encoder(x)).movedim(-1, 1))
        return self.decoder(outward(y.movedim(1, -1)))


def pixels_last(x):
    return x.permute(0, 2, 3, 1)


@functools.cache
def mixed_step(samples, frames, dtype):
    model, given = Mixed(frames, dtype), windows(samples, frames, dtype)
    out = model(pixels_last(given["x"]), given, slice(0, samples), slice(0, frames))
    loss = (out - pixels_last(given["target"])).square().mean()
    loss.backward()
    return after_a_step(model, loss)


def moves(name, mesh, frames, faces):
    """From some faces of the context rank's frames to whole frames, those frames, and back; whether the domain ranks
    share HealDA's frames."""
    domain, own = mesh.group("domain"), mesh.own(faces, "domain")
    pixels = slice(own.start * 4**LEVEL, own.stop * 4**LEVEL)
    here = mesh.own(frames, "context")
    if name == "replicated":  # the domain ranks compute the same, and shard's backward gives them the same cotangent
        return lambda y: parallel.gather(y, 2, domain), here, lambda y: parallel.shard(y, 2, domain), False
    shares = parallel.split_sizes(here.stop - here.start, domain)
    some = mesh.own(shares, "domain")
    mine = slice(here.start + some.start, here.start + some.stop)
    if name == "reshard":
        return lambda y: parallel.shard_t(y, domain), mine, lambda y: parallel.shard_x(y, domain), True
    return (lambda y: parallel.gather(y, 2, domain, sum_grad=True)[:, some], mine,
            lambda y: parallel.gather(y, 1, domain, sum_grad=True)[:, :, pixels], True)


def parallel_mixed_step(mesh, move, mode, sizes, frame_sizes, faces, dtype, without=None):
    """Samples over the data ranks, frames over the context ranks, faces over the domain ranks."""
    mesh = Mesh(**mesh)
    samples, frames = sum(sizes), sum(frame_sizes)
    inward, here, outward, shared = moves(move, mesh, frame_sizes, faces)
    everyone, times = mesh.group("context", "domain"), mesh.group(*("context", "domain")[:1 + shared])
    model = Mixed(frames, dtype, 5 + mesh.index["data"])
    model.analysis.set_context_parallel(mode, times)
    convolutions = model.encoder, model.decoder
    for one in convolutions:
        one.cut(mesh.group("domain"))
    model = parallel.DataParallel(model, mesh.group("data"))
    given, own = windows(samples, frames, dtype), mesh.own(sizes, "data")
    x, target = (pixels_last(given[name][own, :, mesh.own(frame_sizes, "context")]).unflatten(2, (12, -1))[
        :, :, mesh.own(faces, "domain")].flatten(2, 3) for name in ("x", "target"))
    model.sample_count = len(x)
    out = model(x, given, own, here, inward, outward)
    loss = (out - target).square().sum() / (len(x) * OUT * frames * PIXELS)
    loss.backward()
    if without != "analysis":
        parallel.reduce_gradients(model.module.analysis, times)
    if without != "convolutions":
        parallel.reduce_gradients([p for one in convolutions for p in one.parameters()], everyone)
    return after_a_step(model.module, loss * len(x) / samples)


@DTYPES
@pytest.mark.parametrize("move", ["reshard", "gather", "replicated"])
@pytest.mark.parametrize("mesh", MIXED, ids=named)
def test_data_context_and_domain_together(mesh, move, dtype):
    data, context, domain = mesh.values()
    samples = {1: [2], 2: [1, 2], 4: [1, 2, 1, 1]}[data]
    faces = CUT_FACES[domain] if move == "gather" else even(12, domain)  # shard_x and shard cut by the rule
    cuts = {"redistribute": {1: [5], 2: [2, 3], 4: [1, 2, 0, 2]}[context]}
    if move == "reshard" and TOKENS % (context * domain) == 0:
        cuts["all_to_all"] = [2 * domain] * context
    for mode, frames in cuts.items():
        assert_same_step(mesh, functools.partial(mixed_step, sum(samples), sum(frames)), parallel_mixed_step, move,
                         mode, samples, frames, faces, dtype=dtype)


# ---- what these tests see

@pytest.mark.parametrize("alone, step, without, args", [
    *[(conv_step, summed_conv_step, one, ([4, 1], [13, 7])) for one in ("data", "domain", "statistics")],
    *[(conv_step, wrapped_conv_step, one, ([4, 1], [13, 7])) for one in ("weight", "domain")],
    *[(healda_step, parallel_healda_step, one, ("redistribute", [2, 1], [3, 2], 1)) for one in ("weight", "context")],
    *[(mixed_step, parallel_mixed_step, one, (move, "redistribute", [2], [3, 2], [6, 6]))
      for one in ("analysis", "convolutions") for move in ("reshard", "gather", "replicated")],
])
def test_a_step_without_one_of_its_sums_differs(alone, step, without, args):
    mesh = dict(data=2, domain=2)
    arguments = [step is summed_conv_step]
    if alone is healda_step:
        mesh, arguments = dict(data=2, context=2), [3, 5]
    if alone is mixed_step:
        mesh, arguments = dict(context=2, domain=2), [2, 5]
    found = returned(on_ranks(4, step, mesh, *args, torch.float64, without))[0]
    assert max(difference(found, alone(*arguments, torch.float64))["gradient"].values()) > 1e-2
