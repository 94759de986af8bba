# SPDX-License-Identifier: Apache-2.0
"""../shared/golden/parallel from processes that form a torch.distributed group: halos, pads of the globe, what
PhysicsNeMo did. The other files: test_parallel_{conv,interpolate,norms,attention,healpix,reshard,data}.py."""

import functools
import json
import os
import re

import pytest
import torch
from safetensors import safe_open

import halcyon
import test_parallel_conv
import test_parallel_norms
from conftest import SHARED
from ranks import on_ranks, part, rank, returned, world
from whole import ALL_CUTS, cut

FOLDER = os.path.join(SHARED, "golden", "parallel")
FEW_FLOATS = 5e-7  # relative: the order of a few additions of floats


@functools.cache
def golden(file):
    """{case: (its tensors, what the peer did)}; none where the goldens are not on this machine."""
    path = os.path.join(FOLDER, f"{file}.safetensors")
    if not os.path.exists(path):
        return {}
    with safe_open(path, "pt") as content:
        cases = {name: ({}, peer) for name, peer in json.loads(content.metadata()["cases"]).items()}
        for key in content.keys():
            case, tensor = re.fullmatch(r"(.+?)\.((?:peer\.)?[^.]+)", key).groups()
            cases.setdefault(case, ({}, None))[0][tensor] = content.get_tensor(key)
    return cases


def each(pattern, *files):
    """A test for each case of the files with such a name."""
    return pytest.mark.parametrize("file, case", [(file, case) for file in files for case in golden(file)
                                                  if re.fullmatch(pattern, case)])


def numbers(case):
    """{"w": 1, "dim": -2} of "w1.dim-2.even"."""
    found = (re.fullmatch(r"([a-z]+)(-?\d+)", word) for word in re.split(r"[._]", case))
    return {word[1]: int(word[2]) for word in found if word}


def ranks_of(file):
    return int(file[-1])


def leaf(x):
    return x.detach().clone().requires_grad_()


def near(actual, expected, relative):
    torch.testing.assert_close(actual, expected, rtol=0, atol=relative * expected.abs().max().item())


def starts(sizes):
    return [sum(sizes[:r]) for r in range(len(sizes) + 1)]


def check_rows(tensors, results, dim):
    for r, result in enumerate(results):
        assert torch.equal(result[0], tensors[f"y{r}"]), r
    near(torch.cat([one[1] for one in results], dim), tensors["dx"], FEW_FLOATS)


def cotangents(tensors):
    return [tensors[name] for name in sorted(tensors) if re.fullmatch(r"g\d", name)]


def halo(x, sizes, width, dim, gs):
    x = leaf(part(x, sizes, dim))
    y = halcyon.halo_exchange(x, width, dim)
    y.backward(gs[rank()])
    module = halcyon.HaloExchange(width, dim)
    assert torch.equal(module(x), y) and torch.equal(module.trim(y, width, width, dim), x)
    return y.detach(), x.grad


@each(r"w\d.*", "credit_halo_n2", "credit_halo_n3")
def test_halos_of_credit(file, case):
    tensors, said = golden(file)[case][0], numbers(case)
    results = on_ranks(ranks_of(file), halo, tensors["x"], tensors["sizes"].tolist(), said["w"], said["dim"],
                       cotangents(tensors))
    check_rows(tensors, returned(results), said["dim"])


def derivatives(x, v, width):
    x = leaf(part(x))
    g1, = torch.autograd.grad(halcyon.halo_exchange(x, width).pow(3).sum(), x, create_graph=True)
    g2, = torch.autograd.grad((g1 * part(v)).sum(), x)
    return g1.detach(), g2


@each("double", "credit_halo_n2", "credit_halo_n3")
def test_derivatives_of_halos(file, case):
    """Of the sum of y^3 by x, and of sum(g1 v): the peer is silently wrong."""
    tensors = golden(file)[case][0]
    results = returned(on_ranks(ranks_of(file), derivatives, tensors["x"], tensors["v"], 1))
    for i, name in enumerate(("g1", "g2")):
        near(torch.cat([one[i] for one in results], -2), tensors[name], 1e-14)


@each("too_wide", "credit_halo_n2", "credit_halo_n3")
def test_halos_wider_than_a_part(file, case):
    """The file has what the peer raised: so many rows of each rank, and a wider halo."""
    width, rows = map(int, re.search(r"length \((\d+)\) exceeds dimension size \((\d+)\)",
                                     golden(file)[case][1]["peer_raised"]).groups())
    n = ranks_of(file)
    assert width > rows
    x = torch.randn(2, n * rows, 4)
    whole, gs = leaf(x), torch.randn(n, 2, rows + 2 * width, 4)
    padded = torch.nn.functional.pad(whole, (0, 0, width, width))
    wanted = [padded[:, r * rows:(r + 1) * rows + 2 * width] for r in range(n)]
    torch.autograd.backward(wanted, list(gs))
    tensors = {"dx": whole.grad, **{f"y{r}": one.detach() for r, one in enumerate(wanted)}}
    check_rows(tensors, returned(on_ranks(n, halo, x, [rows] * n, width, -2, gs)), -2)


def physicsnemo_halo(tensors, width, edge, dim):
    """Beyond the ends of the axis only `edge` rows of zeros."""
    sizes = tensors["sizes"].tolist()
    x = leaf(part(tensors["x"], sizes, dim))
    before, after = edge if rank() == 0 else width, edge if rank() == world() - 1 else width
    y = halcyon.parallel.gather_rows(x, starts(sizes)[rank()] - before, starts(sizes)[rank() + 1] + after, dim)
    y.backward(tensors[f"g{rank()}"])
    trim = halcyon.HaloExchange.trim
    assert torch.equal(trim(halcyon.halo_exchange(x, width, dim), width - before, width - after, dim), y)
    assert torch.equal(trim(y, before, after, dim), x)
    return y.detach(), x.grad


@each(".*", "pnm_halo_n2")
def test_halos_of_physicsnemo(file, case):
    tensors, said = golden(file)[case][0], numbers(case)
    results = on_ranks(ranks_of(file), physicsnemo_halo, tensors, said["w"], said["edge"], said["dim"])
    check_rows(tensors, returned(results), said["dim"])


@functools.cache
def grid(rows, columns):
    """Ranks in row order: the group of this one's column, and of its row."""
    down = [torch.distributed.new_group(range(c, rows * columns, columns)) for c in range(columns)]
    along = [torch.distributed.new_group(range(r * columns, (r + 1) * columns)) for r in range(rows)]
    return down[rank() % columns], along[rank() // columns]


def place(whole, r, latitudes, longitudes, pads=((0, 0), (0, 0))):
    """Rank r's rows and columns of the whole, which has the pads."""
    for dim, i, sizes, (before, after) in ((-2, r // len(longitudes), latitudes, pads[0]),
                                           (-1, r % len(longitudes), longitudes, pads[1])):
        whole = whole.narrow(dim, starts(sizes)[i], sizes[i] + before + after)
    return whole


def joined(results, columns):
    return torch.cat([torch.cat(results[i:i + columns], -1) for i in range(0, len(results), columns)], -2)


def halo_2d(x, gs, width, latitudes, longitudes):
    down, along = grid(len(latitudes), len(longitudes))
    mine = leaf(place(x, rank(), latitudes, longitudes))
    y = halcyon.halo_exchange(halcyon.halo_exchange(mine, width, -2, down), width, -1, along)
    y.backward(gs[rank()])
    return y.detach(), mine.grad


@each(".*", "pnm_halo2d_n4")
def test_halos_on_two_axes(file, case):
    tensors, n = golden(file)[case][0], ranks_of(file)
    parts = [cut(length, 2) for length in tensors["x"].shape[-2:]]
    results = returned(on_ranks(n, halo_2d, tensors["x"], cotangents(tensors), numbers(case)["w"], *parts))
    assert all(torch.equal(one[0], tensors[f"y{r}"]) for r, one in enumerate(results))
    near(joined([one[1] for one in results], 2), tensors["dx"], FEW_FLOATS)


def globe(x, y, g, pads, edge, latitudes, longitudes):
    """Latitudes first, then longitudes: whether this rank has its part of y, and the gradient by its part of x."""
    down, along = grid(len(latitudes), len(longitudes)) if world() > 1 else (None, None)
    mine = leaf(place(x, rank(), latitudes, longitudes))
    out = halcyon.halo_exchange(mine, pads[0], -2, down, edge, fold_group=along)
    out = halcyon.halo_exchange(out, pads[1], -1, along, "periodic")
    # halos overlap: what a rank before this one has gets its cotangent there
    left = g.clone()
    for r in range(rank()):
        place(left, r, latitudes, longitudes, pads).zero_()
    out.backward(place(left, rank(), latitudes, longitudes, pads))
    return torch.equal(out, place(y, rank(), latitudes, longitudes, pads)), mine.grad


EDGES = {"earth": "fold", "mirror": "reflect"}
# (ranks, which) of whole.CUTS for latitudes and longitudes
CUTS = [*[(one, (1, 0)) for one in ALL_CUTS], *[((1, 0), one) for one in ALL_CUTS[1:]], ((2, 0), (2, 0)),
        ((2, 1), (2, 1))]


def check_globe(x, y, g, dx, pads, edge, cuts):
    latitudes, longitudes = (cut(length, *one) for length, one in zip(x.shape[-2:], cuts))
    n = len(latitudes) * len(longitudes)
    results = returned(on_ranks(n, globe, x, y, g, pads, edge, latitudes, longitudes))
    assert [one[0] for one in results] == [True] * n
    near(joined([one[1] for one in results], len(longitudes)), dx, 1e-14)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@each(".*_lon.*", "ref_latlon_padding")
def test_pads_of_the_globe(file, case, cuts):
    tensors, peer = golden(file)[case]
    pads, edge = (peer["pad_lat"], peer["pad_lon"]), EDGES[case.split("_")[0]]
    check_globe(*(tensors[name] for name in ("x", "y", "g", "dx")), pads, edge, cuts)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@each(r"[a-z]+_lat\d+_\d+", "ref_latlon_padding")
def test_pad_of_one_pole(file, case, cuts):
    """No pad below, where the peer appends the whole globe: the first rows of a pad on both sides."""
    kind, above, below = re.fullmatch(r"(\w+)_lat(\d+)_(\d+)", case).groups()
    above, below, expected = int(above), int(below), golden(file)[case][1]
    (tensors, peer), = (one for name, one in golden(file).items() if name.startswith(f"{kind}_lat{above}_") and
                        name.endswith(f"_W{expected['peer_shape'][-1]}"))
    height, width = tensors["x"].shape[-2:]
    assert EDGES[kind] == "fold" and height + above + below == expected["expected_rows"]
    y, g = (tensors[name][..., :height + above, peer["pad_lon"][0]:][..., :width] for name in ("y", "g"))
    x = leaf(tensors["x"])
    torch.cat([x[..., :above, :].flip(-2).roll(width // 2, -1), x], -2).backward(g)
    check_globe(x.detach(), y, g, x.grad, ((above, below), (0, 0)), EDGES[kind], cuts)


def trained(x, pad):
    """The globe padded on both sides, then cut, a model that changes nothing, and the pads cut off again."""
    height = x.shape[-2]
    own, wide = (starts(halcyon.parallel.split_sizes(length)) for length in (height, height + 2 * pad))
    mine = leaf(part(x))
    rows = halcyon.parallel.gather_rows(mine, wide[rank()] - pad, wide[rank() + 1] - pad, edge="fold")
    back = halcyon.parallel.gather_rows(rows, own[rank()] + pad, own[rank() + 1] + pad, edge="none")
    back.backward(part(x.cos()))
    return rows.detach(), back.detach(), mine.grad


@pytest.mark.skipif(not os.path.exists(FOLDER), reason="the goldens are not on this machine")
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_pad_shard_unpad(n):
    """The peer is right on 2 ranks only; here every rank gets its own rows on any number of them."""
    pad = 6
    tensors, peer = golden("credit_misc_n2")["pad_shard_unpad"]
    wanted = torch.cat([tensors["peer.y0"], tensors["peer.y1"]], -2)
    x = torch.tensor(sum(peer["rows"], []), dtype=wanted.dtype).view(-1, 1).expand(wanted.shape).contiguous()
    results = returned(on_ranks(n, trained, x, pad))
    turned = x.roll(x.shape[-1] // 2, -1)
    rows, back, gradient = (torch.cat([one[i] for one in results], -2) for i in range(3))
    assert torch.equal(rows, torch.cat([turned[..., :pad, :].flip(-2), x, turned[..., -pad:, :].flip(-2)], -2))
    assert torch.equal(back, wanted) and torch.equal(gradient, x.cos())
    assert n != 2 or [one[1][..., 0].flatten().tolist() for one in results] == peer["rows"]


def periodic(tensors, edge):
    x, weight, bias = leaf(part(tensors["x"])), leaf(tensors["weight"]), leaf(tensors["bias"])
    y = halcyon.parallel.conv(x, weight, bias, padding=weight.shape[-1] // 2, padding_mode="circular", edge=edge)
    y.backward(part(tensors["g"]))
    halcyon.parallel.reduce_gradients([weight, bias])
    return y.detach(), x.grad, weight.grad, bias.grad


@each("periodic.*", "credit_misc_n2")
def test_periodic_convolutions(file, case):
    tensors = golden(file)[case][0]
    results = returned(on_ranks(ranks_of(file), periodic, tensors, "zero"))
    for i, name in enumerate(("y_zero", "dx_zero")):
        near(torch.cat([one[i] for one in results], -2), tensors[name], 1e-13)
    for i, name in ((2, "dweight_zero"), (3, "dbias_zero")):  # reduced: the same on every rank
        for one in results:
            near(one[i], tensors[name], 1e-13)


@each(".*", "pnm_ops_n2")
def test_operators_of_physicsnemo(file, case):
    """The file has what the peer did with cases of CREDIT's files; where it was right, rows lie on the same ranks."""
    peer, n = golden(file)[case][1], ranks_of(file)
    if case.startswith("gn"):
        truth = golden(f"credit_norm_n{n}")[case][0]
        results = returned(on_ranks(n, test_parallel_norms.local, "group_norm", truth["x"], truth["sizes"].tolist(), -2,
                                    truth.get("weight"), truth.get("bias"), truth["g"], (numbers(case)["g"],), {}))
        results = [(y, *grads) for y, grads, _ in results]
    else:
        truth = golden(f"credit_conv_n{n}")[case][0]
        results = returned(on_ranks(n, test_parallel_conv.golden_rank, f"credit_conv_n{n}.safetensors", case))
    rows = [one[0].shape[-2] for one in results]
    if "peer_raised" not in peer:
        assert (peer["peer_rows"] == rows) == (peer["fwd"] is not None)
    for i, name in enumerate(("y", "dx", "dweight", "dbias")):
        if name in truth:
            mine = [one[i] for one in results]
            near(torch.cat(mine, -2) if i < 2 else sum(mine), truth[name], 1e-13)
