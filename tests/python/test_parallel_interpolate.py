# SPDX-License-Identifier: Apache-2.0
"""interpolate on a sharded axis against torch on the whole tensor, and the golden cases."""

import os

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from conftest import SHARED
from ranks import Raised, on_ranks, returned
from whole import ALL_CUTS, Case, call, compare, cut, random

GOLDEN = os.path.join(SHARED, "golden", "parallel", "credit_misc_n2.safetensors")


def resized(shape, dim=-2, **arguments):
    return shape, Case("interpolate", arguments, dim)


CASES = [resized(shape, **wanted, mode=mode) for mode in ("nearest", "nearest-exact") for shape, wanted in (
    ((1, 2, 12, 5), dict(scale_factor=2)), ((1, 2, 12, 5), dict(scale_factor=(1.5, 0.7))),
    ((1, 2, 12, 5), dict(size=(7, 11))), ((1, 2, 12, 5), dict(size=12)), ((1, 2, 12, 5), dict(scale_factor=1.05)),
    ((1, 2, 12), dict(scale_factor=2.3, dim=-1)), ((1, 2, 3, 12, 4), dict(size=(4, 25, 3))))]
CASES += [resized(shape, **wanted, mode=mode, align_corners=corners) for corners in (None, False, True)
          for mode, shape, wanted in (
    ("bilinear", (1, 2, 12, 5), dict(scale_factor=2)), ("bilinear", (1, 2, 12, 5), dict(scale_factor=(1.5, 0.7))),
    ("bilinear", (1, 2, 12, 5), dict(scale_factor=0.5)), ("bilinear", (1, 2, 5, 12), dict(size=(7, 31), dim=-1)),
    ("bilinear", (1, 2, 12, 5), dict(size=(1, 3))), ("bilinear", (1, 2, 12, 5), dict(size=(12, 9))),
    ("bilinear", (1, 2, 12, 5), dict(scale_factor=(1.05, 1))),
    ("bicubic", (1, 2, 12, 5), dict(scale_factor=2)), ("bicubic", (1, 2, 12, 5), dict(scale_factor=(1.7, 0.6))),
    ("bicubic", (1, 2, 12, 5), dict(size=(5, 8))), ("bicubic", (1, 2, 3, 5), dict(scale_factor=(1, 2))),
    ("linear", (1, 2, 12), dict(scale_factor=2.3, dim=2)), ("trilinear", (1, 2, 3, 12, 4), dict(scale_factor=1.5)),
    ("trilinear", (1, 2, 12, 3, 4), dict(size=(5, 6, 7), dim=2)))]


@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_interpolate(ranks, which):
    for shape, case in CASES:
        compare(lambda x: F.interpolate(x, **case.arguments), random(*shape), cut(shape[case.dim], ranks, which), case,
                rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("arguments", [dict(scale_factor=2.3), dict(size=(517, 9)), dict(scale_factor=0.37),
                                       dict(scale_factor=(1.0007, 1)), dict(scale_factor=2.0003)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_axes(mode, arguments, dtype):
    x = random(1, 1, 1511, 6, dtype=dtype)
    results = returned(on_ranks(3, call, "interpolate", [(one,) for one in x.split(cut(1511, 3), -2)],
                                [dict(mode=mode, **arguments)] * 3))
    wanted = F.interpolate(x, mode=mode, **arguments)
    if mode.startswith("nearest"):
        assert torch.equal(torch.cat(results, -2), wanted)
    torch.testing.assert_close(torch.cat(results, -2), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(dtype):
    x = random(1, 2, 12, 6, dtype=dtype)
    for mode in ("nearest", "bilinear"):
        results = returned(on_ranks(2, call, "interpolate", [(one,) for one in x.split([5, 7], -2)],
                                    [dict(mode=mode, scale_factor=2)] * 2))
        assert all(one.dtype == dtype for one in results)
        wanted = F.interpolate(x.float(), mode=mode, scale_factor=2).to(dtype)
        torch.testing.assert_close(torch.cat(results, -2), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(not os.path.exists(GOLDEN), reason="the goldens are not on this machine")
@pytest.mark.parametrize("case, scale", [("interp_x2", 2), ("interp_x1p5", 1.5), ("interp_x0p5", 0.5)])
def test_golden(case, scale):
    with safe_open(GOLDEN, "pt") as file:
        x, y = file.get_tensor(f"{case}.x"), file.get_tensor(f"{case}.y")
    for sizes in ([12, 12], [1, 23], [0, 24]):
        results = returned(on_ranks(2, call, "interpolate", [(one,) for one in x.split(sizes, -2)],
                                    [dict(mode="bilinear", scale_factor=scale, align_corners=False)] * 2))
        torch.testing.assert_close(torch.cat(results, -2), y, rtol=1e-12, atol=1e-12)


X = torch.zeros(1, 2, 6, 5)


@pytest.mark.parametrize("one, other, text", [
    (dict(scale_factor=2), dict(size=12), "size or scale_factor"),
    (dict(scale_factor=2), dict(scale_factor=3), "scale"),
    (dict(size=12), dict(size=13), "size"), (dict(size=12), dict(size=12, mode="bilinear"), "mode"),
    (dict(size=9, mode="bilinear", align_corners=True), dict(size=9, mode="bilinear"), "align_corners"),
])
def test_mismatch(one, other, text):
    for result in on_ranks(2, call, "interpolate", [(X,), (X,)], [one, other]):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    returned(on_ranks(2, call, "interpolate", [(X,)] * 2, [dict(size=12)] * 2))


@pytest.mark.parametrize("arguments", [
    {}, dict(size=3, scale_factor=2), dict(size=0), dict(scale_factor=-1.0), dict(size=(1, 2, 3)),
    dict(size=3, mode="linear"), dict(size=3, mode="area"), dict(size=3, align_corners=True), dict(size=3, dim=1),
    dict(scale_factor=0.01),
])
def test_refused_with_one_text(arguments):
    results = on_ranks(2, call, "interpolate", [(X,)] * 2, [arguments] * 2)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith("[interpolate] "), results[0].text
