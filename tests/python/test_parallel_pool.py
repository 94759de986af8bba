# SPDX-License-Identifier: Apache-2.0
"""pool on a sharded axis: torch's pooling of the whole tensor, bit for bit."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import halcyon
from ranks import Raised, on_ranks, returned
from whole import ALL_CUTS, Case, call, compare, cut, random

PLAIN = {("max", 1): F.max_pool1d, ("max", 2): F.max_pool2d, ("max", 3): F.max_pool3d,
         ("avg", 1): F.avg_pool1d, ("avg", 2): F.avg_pool2d, ("avg", 3): F.avg_pool3d}


def plain_pool(x, spatial, mode="max", count_include_pad=True, dilation=1, **arguments):
    own = dict(dilation=dilation) if mode == "max" else dict(count_include_pad=count_include_pad)
    return PLAIN[mode, spatial](x, **own, **arguments)


def pool_case(shape, spatial=2, dim=-2, second=True, **arguments):
    return shape, spatial, Case("pool", arguments, dim, second=second)


CASES = [
    pool_case((2, 3, 12, 7), kernel_size=2),
    pool_case((2, 3, 12, 7), kernel_size=3, padding=1, stride=1),
    pool_case((2, 3, 13, 8), kernel_size=3, padding=1, stride=2, ceil_mode=True),
    pool_case((2, 3, 13, 8), kernel_size=(4, 3), padding=(2, 1), stride=(3, 2), ceil_mode=True),
    pool_case((1, 2, 14, 9), kernel_size=(2, 2), stride=(5, 3), ceil_mode=True),
    pool_case((1, 2, 12, 9), kernel_size=(5, 2), stride=(2, 2), padding=(2, 0)),
    pool_case((2, 13), 1, -1, kernel_size=(3,), stride=2, padding=1),
    pool_case((2, 3, 13), 1, -1, kernel_size=4, stride=2, padding=2, ceil_mode=True),
    pool_case((2, 7, 12), 2, -1, kernel_size=(3, 3), padding=1, stride=2),
    pool_case((1, 2, 3, 12, 5), 3, -2, kernel_size=(1, 3, 3), padding=(0, 1, 1), stride=(1, 2, 1)),
    pool_case((1, 2, 13, 4, 5), 3, 2, kernel_size=3, stride=2, padding=1, ceil_mode=True),
    pool_case((1, 2, 12, 6), kernel_size=(11, 3), padding=(5, 1), stride=1),
]
OF_ONE_MODE = [
    pool_case((1, 2, 14, 9), kernel_size=(3, 2), dilation=(3, 2), stride=2, padding=1),
    pool_case((1, 2, 14, 9), kernel_size=(2, 2), dilation=(4, 1), stride=3, ceil_mode=True),
] + [pool_case(shape, spatial, case.dim, mode="avg", count_include_pad=False, **case.arguments)
     for shape, spatial, case in CASES]


def check_pool(shape, spatial, case, ranks, which, dtype=torch.float64):
    compare(lambda x: plain_pool(x, spatial, **case.arguments), random(*shape, dtype=dtype),
            cut(shape[case.dim], ranks, which), case)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_pool(ranks, which, mode):
    for shape, spatial, case in CASES:
        check_pool(shape, spatial, Case("pool", dict(mode=mode, **case.arguments), case.dim), ranks, which)


@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_dilation_and_what_counts(ranks, which):
    for shape, spatial, case in OF_ONE_MODE:
        check_pool(shape, spatial, case, ranks, which)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits(dtype):
    for kernel, stride, padding, ceil_mode, mode in itertools.product((2, 3, 5), (1, 2, 3), (0, 1), (False, True),
                                                                      ("max", "avg")):
        x = random(2, 3, 14, 6, seed=kernel, dtype=dtype)
        arguments = dict(kernel_size=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)
        parts = x.split(cut(14, 3), -2)
        results = returned(on_ranks(3, call, "pool", [(one,) for one in parts], [dict(mode=mode, **arguments)] * 3))
        assert torch.equal(torch.cat(results, -2), plain_pool(x, 2, mode, **arguments)), (arguments, mode)


X = torch.zeros(1, 2, 6, 5)


@pytest.mark.parametrize("one, other, text", [
    (dict(kernel_size=2), dict(kernel_size=3), "kernel_size"),
    (dict(kernel_size=2, stride=1), dict(kernel_size=2), "stride"),
    (dict(kernel_size=2, padding=1), dict(kernel_size=2), "padding"),
    (dict(kernel_size=2, mode="avg"), dict(kernel_size=2), "mode"),
    (dict(kernel_size=2, ceil_mode=True), dict(kernel_size=2), "ceil_mode"),
])
def test_mismatch(one, other, text):
    for result in on_ranks(2, call, "pool", [(X,), (X,)], [one, other]):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    returned(on_ranks(2, call, "pool", [(X,)] * 2, [dict(kernel_size=2)] * 2))


@pytest.mark.parametrize("arguments", [
    dict(kernel_size=13), dict(kernel_size=(2, 7)), dict(kernel_size=3, padding=2), dict(kernel_size=0),
    dict(kernel_size=2, stride=0), dict(kernel_size=2, mode="mean"), dict(kernel_size=2, dilation=2, mode="avg"),
    dict(kernel_size=2, dim=1), dict(kernel_size=(2, 2, 2, 2)), dict(kernel_size=2, stride=(1, 1, 1)),
])
def test_refused_with_one_text(arguments):
    results = on_ranks(2, call, "pool", [(X,)] * 2, [arguments] * 2)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith("[pool] "), results[0].text


def test_alone():
    x = random(1, 2, 9, 5)
    assert torch.equal(halcyon.parallel.pool(x, 3, 2, 1), F.max_pool2d(x, 3, 2, 1))
