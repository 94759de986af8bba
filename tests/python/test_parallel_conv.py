# SPDX-License-Identifier: Apache-2.0
"""conv and conv_transpose on a sharded axis against torch on the whole tensor, and against the peers' goldens."""

import os

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

import halcyon
from conftest import SHARED
from ranks import Raised, on_ranks, part, rank, returned
from whole import ALL_CUTS, Case, call, compare, cut, random

GOLDEN = os.path.join(SHARED, "golden", "parallel")
PLAIN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def per_axis(value, n):
    return list(value) if isinstance(value, (tuple, list)) else [value] * n


def padded(x, pads, mode, n, edge=None, at=None):
    """x padded axis by axis; pads (before, after) a spatial axis."""
    for i, (before, after) in enumerate(pads):
        axis = x.dim() - n + i
        rule = {"zeros": "zero", "circular": "periodic"}.get(mode, mode)
        if at == i and edge:
            rule = edge
        length = x.shape[axis]
        index = torch.arange(-before, length + after)
        inside = (index >= 0) & (index < length)
        if rule == "periodic":
            index = index % length
        elif rule == "reflect":
            index = (length - 1 - (length - 1 - index.abs()).abs())
        elif rule == "fold":
            index = torch.where(index < 0, -1 - index, torch.where(index >= length, 2 * length - 1 - index, index))
        taken = x.index_select(axis, index.clamp(0, length - 1))
        view = [-1 if a == axis else 1 for a in range(x.dim())]
        if rule == "zero":
            taken = taken * inside.to(x.dtype).view(view)
        elif rule == "fold":
            taken = torch.where(inside.view(view), taken, taken.roll(x.shape[-1] // 2, -1))
        x = taken
    return x


def plain_conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", dim=-2,
               edge=None):
    n = weight.dim() - 2
    if isinstance(padding, str):
        extent = [d * (k - 1) for d, k in zip(per_axis(dilation, n), weight.shape[2:])]
        pads = [((e // 2, e - e // 2) if padding == "same" else (0, 0)) for e in extent]
    else:
        pads = [(p, p) for p in per_axis(padding, n)]
    at = (dim % x.dim()) - (x.dim() - n)
    return PLAIN[n](padded(x, pads, padding_mode, n, edge, at), weight, bias, stride, 0, dilation, groups)


def conv_case(x_shape, weight_shape, dim=-2, bias=True, **arguments):
    parameters = [random(*weight_shape, seed=1)] + ([random(weight_shape[0], seed=2)] if bias else [])
    return x_shape, Case("conv", arguments, dim, parameters)


CONVOLUTIONS = [
    conv_case((2, 3, 12, 7), (4, 3, 3, 3), padding=1),
    conv_case((2, 3, 13, 7), (4, 3, 3, 3), padding="same", bias=False),
    conv_case((1, 3, 12, 8), (2, 3, 5, 3), padding=(2, 1)),
    conv_case((2, 3, 12, 8), (2, 3, 5, 3), padding=(1, 2)),
    conv_case((1, 2, 12, 7), (2, 2, 4, 2), padding="same"),
    conv_case((1, 2, 12, 7), (2, 2, 3, 3), padding="same", dilation=(2, 1)),
    conv_case((1, 2, 24, 7), (2, 2, 3, 3), padding=(2, 1), dilation=(2, 1)),
    conv_case((1, 2, 13, 7), (3, 2, 3, 3), padding="valid"),
    conv_case((1, 2, 13, 8), (3, 2, 3, 3), stride=2, padding=1),
    conv_case((1, 2, 12, 8), (3, 2, 3, 3), stride=(2, 1), padding=0),
    conv_case((1, 2, 14, 8), (3, 2, 8, 4), stride=2, padding=(3, 1)),
    conv_case((1, 2, 13, 8), (3, 2, 2, 2), stride=3),
    conv_case((1, 2, 12, 8), (3, 2, 2, 2), stride=2),
    conv_case((2, 4, 12, 6), (4, 1, 3, 3), padding=1, groups=4),
    conv_case((2, 4, 12, 6), (6, 2, 3, 1), padding=(1, 0), groups=2, dim=2),
    conv_case((1, 2, 12, 6), (3, 2, 1, 1)),
    conv_case((1, 2, 12, 6), (3, 2, 1, 3), padding=(0, 1)),
    conv_case((1, 2, 6, 12), (3, 2, 3, 3), padding=1, dim=-1),
    conv_case((1, 2, 6, 12), (3, 2, 3, 3), padding=1, dim=-1, padding_mode="circular"),
    conv_case((1, 2, 12, 6), (3, 2, 3, 3), padding=1, padding_mode="circular"),
    conv_case((1, 2, 24, 6), (3, 2, 5, 3), padding=(2, 1), padding_mode="reflect"),
    conv_case((1, 2, 12, 6), (3, 2, 3, 5), padding=(1, 2), padding_mode="circular", edge="reflect"),
    conv_case((1, 2, 12, 6), (3, 2, 3, 5), padding=(1, 2), padding_mode="circular", edge="zero"),
    conv_case((1, 2, 12, 6), (3, 2, 3, 3), padding=(1, 1), padding_mode="circular", edge="fold"),
    conv_case((1, 2, 12, 6), (3, 2, 4, 4), padding="same", padding_mode="circular"),
    conv_case((1, 2, 12, 6), (3, 2, 11, 3), padding=(5, 1)),
    conv_case((1, 2, 4, 6), (3, 2, 9, 3), padding=(5, 1)),
    conv_case((2, 12, 6), (3, 2, 3, 3), padding=1),
    conv_case((2, 3, 12), (4, 3, 3), dim=-1, padding=1),
    conv_case((2, 3, 13), (4, 3, 4), dim=2, padding=1, stride=2),
    conv_case((1, 2, 3, 12, 5), (3, 2, 3, 3, 3), padding=1),
    conv_case((1, 2, 12, 3, 5), (3, 2, 3, 3, 3), padding=(1, 0, 1), dim=2, stride=(2, 1, 1)),
    conv_case((1, 2, 3, 12, 5), (3, 2, 1, 2, 2), stride=(1, 2, 2)),
]
# with 60 rows ranks have enough of their own for the path that convolves in place, uneven cuts too
IN_PLACE = [
    conv_case((2, 3, 60, 7), (4, 3, 3, 3), padding=1),
    conv_case((1, 2, 60, 6), (4, 2, 5, 3), padding=(2, 1), bias=False),
    conv_case((1, 2, 60, 6), (4, 2, 3, 3), padding=(2, 1), dilation=(2, 1), padding_mode="circular"),
    conv_case((1, 2, 60, 6), (4, 2, 3, 3), padding=(1, 1), padding_mode="circular", edge="zero"),
    conv_case((1, 2, 60, 6), (4, 2, 3, 4), padding="same", padding_mode="reflect"),
    conv_case((1, 2, 60, 6), (4, 2, 3, 4), padding="same"),
    conv_case((1, 2, 60, 6), (4, 1, 3, 3), padding=1, groups=2, stride=(1, 2)),
    conv_case((2, 60, 6), (3, 2, 3, 3), padding=1),
    conv_case((1, 2, 60), (3, 2, 3), padding=1, dim=-1),
    conv_case((1, 2, 3, 60, 4), (3, 2, 3, 3, 3), padding=1),
]


def check_conv(shape, case, ranks, which):
    x = random(*shape)
    compare(lambda t, *parameters: plain_conv(t, *parameters, dim=case.dim, **case.arguments), x,
            cut(shape[case.dim], ranks, which), case)


@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_conv(ranks, which):
    for shape, case in CONVOLUTIONS:
        check_conv(shape, case, ranks, which)


@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_conv_in_place(ranks, which):
    for shape, case in IN_PLACE:
        check_conv(shape, case, ranks, which)


def transposed_case(x_shape, weight_shape, dim=-2, bias=True, **arguments):
    outputs = weight_shape[1] * arguments.get("groups", 1)
    parameters = [random(*weight_shape, seed=1)] + ([random(outputs, seed=2)] if bias else [])
    return x_shape, Case("conv_transpose", arguments, dim, parameters)


TRANSPOSED_CASES = [
    transposed_case((2, 3, 12, 5), (3, 2, 4, 4), stride=2, padding=1),
    transposed_case((2, 3, 12, 5), (3, 2, 4, 4), stride=2),
    transposed_case((2, 3, 12, 5), (3, 2, 3, 3), stride=2, padding=1, output_padding=1),
    transposed_case((2, 3, 12, 5), (3, 2, 3, 3), padding=1),
    transposed_case((2, 3, 12, 5), (3, 2, 2, 2), stride=2, bias=False),
    transposed_case((2, 3, 12, 5), (3, 2, 2, 2), stride=4, output_padding=3),
    transposed_case((2, 3, 12, 5), (3, 2, 3, 2), stride=(3, 1), dilation=(4, 1), padding=(2, 0), output_padding=(3, 0)),
    transposed_case((1, 4, 12, 5), (4, 2, 5, 3), stride=2, padding=(2, 1), groups=2),
    transposed_case((1, 2, 12, 5), (2, 2, 2, 3), padding=(4, 1), stride=1, dilation=1),
    transposed_case((1, 2, 12, 5), (2, 2, 1, 1), stride=3),
    transposed_case((2, 3, 12), (3, 2, 4), stride=2, padding=1, dim=-1),
    transposed_case((2, 12, 5), (2, 3, 3, 3), stride=2),
    transposed_case((1, 2, 2, 12, 4), (2, 2, 1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1)),
    transposed_case((1, 2, 12, 2, 4), (2, 2, 3, 2, 2), stride=2, dim=2, output_padding=(1, 0, 1)),
]


@pytest.mark.parametrize("ranks, which", ALL_CUTS)
def test_conv_transpose(ranks, which):
    for shape, case in TRANSPOSED_CASES:
        function = TRANSPOSED[case.parameters[0].dim() - 2]
        compare(lambda x, weight, bias=None: function(x, weight, bias, **case.arguments), random(*shape),
                cut(shape[case.dim], ranks, which), case)


def golden_cases(name):
    path = os.path.join(GOLDEN, name)
    if not os.path.exists(path):
        return []
    with safe_open(path, "pt") as file:
        return sorted({key.split(".")[0] for key in file.keys() if key.endswith(".dweight")})


def golden(name, case):
    with safe_open(os.path.join(GOLDEN, name), "pt") as file:
        return {key.split(".", 1)[1]: file.get_tensor(key) for key in file.keys() if key.startswith(case + ".")}


OPTIONS = {  # of the cases by name; others follow from their names
    "conv2d_k3_s1_dil2": dict(dilation=2, padding=2), "conv2d_k3_circular": dict(padding=1, padding_mode="circular"),
    "conv2d_k3_groups": None, "conv2d_k1": dict(), "conv3d_k3_same": dict(padding=1),
    "conv3d_patch_144": dict(stride=(1, 2, 2)), "convT2d_k2_s2": dict(stride=2), "convT2d_k3_s1_p1": dict(padding=1),
    "convT2d_k3_s2_p1_op1": dict(stride=2, padding=1, output_padding=1), "convT2d_k4_s2_p0": dict(stride=2),
    "convT2d_k4_s2_p1": dict(stride=2, padding=1), "convT3d_patch_122": dict(stride=(1, 2, 2)),
    "convT3d_k144_s122_p011": dict(stride=(1, 2, 2), padding=(0, 1, 1)),
    "crossembed_k4": dict(stride=2, padding=1), "crossembed_k8": dict(stride=2, padding=3),
}


def options_of(case, tensors):
    weight = tensors["weight"]
    if case == "conv2d_k3_groups":
        return dict(padding=1, groups=tensors["x"].shape[1] // weight.shape[1])
    if case in OPTIONS:
        return OPTIONS[case]
    words = case.split("_")
    numbers = {word[0]: int(word[1:]) for word in words if word[1:].isdigit()}
    padding = "same" if "same" in words else "valid" if "valid" in words else numbers.get("p", 0)
    return dict(stride=numbers.get("s", 1), padding=padding)


def golden_rank(name, case):
    tensors = golden(name, case)
    sizes = tensors["sizes"].tolist() if "sizes" in tensors else None
    x = part(tensors["x"], sizes).clone().requires_grad_()
    weight, bias = (tensors[key].clone().requires_grad_() for key in ("weight", "bias"))
    function = halcyon.parallel.conv_transpose if "convT" in case else halcyon.parallel.conv
    y = function(x, weight, bias, **options_of(case, tensors))
    before = torch.tensor([y.shape[-2]])
    lengths = [torch.zeros_like(before) for _ in range(2)]
    torch.distributed.all_gather(lengths, before)
    y.backward(part(tensors["g"], [int(one) for one in lengths]))
    return y.detach(), x.grad, weight.grad, bias.grad


@pytest.mark.parametrize("name, case", [(name, case) for name in ("credit_conv_n2.safetensors",
                                                                  "credit_misc_n2.safetensors")
                                        for case in golden_cases(name)])
def test_golden(name, case):
    tensors = golden(name, case)
    (y, dx, dw, db), (y1, dx1, dw1, db1) = returned(on_ranks(2, golden_rank, name, case))
    for mine, wanted in ((torch.cat([y, y1], -2), "y"), (torch.cat([dx, dx1], -2), "dx"), (dw + dw1, "dweight"),
                         (db + db1, "dbias")):
        torch.testing.assert_close(mine, tensors[wanted], rtol=1e-11, atol=1e-11)


def periodic_rank(case, edge):
    tensors = golden("credit_misc_n2.safetensors", case)
    padding = (tensors["weight"].shape[-1] - 1) // 2
    return halcyon.parallel.conv(part(tensors["x"]), tensors["weight"], tensors["bias"], padding=padding,
                                 padding_mode="circular", edge=edge)


@pytest.mark.skipif(not os.path.exists(GOLDEN), reason="the goldens are not on this machine")
@pytest.mark.parametrize("case", ["periodic_conv_p1", "periodic_conv_p2"])
@pytest.mark.parametrize("edge", ["reflect", "zero"])
def test_golden_poles(case, edge):
    y = torch.cat(returned(on_ranks(2, periodic_rank, case, edge)), -2)
    torch.testing.assert_close(y, golden("credit_misc_n2.safetensors", case)[f"y_{edge}"], rtol=1e-11, atol=1e-11)


X, W = torch.zeros(1, 2, 6, 5), torch.zeros(3, 2, 3, 3)


@pytest.mark.parametrize("name, tensors, options, text", [
    ("conv", [(X, W), (X, W)], [dict(stride=1), dict(stride=2)], "stride"),
    ("conv", [(X, W), (X, W)], [dict(padding=1), dict(padding=0)], "padding"),
    ("conv", [(X, W), (X, W)], [dict(dilation=1), dict(dilation=2)], "dilation"),
    ("conv", [(X, W), (X, torch.zeros(3, 2, 5, 3))], [{}, {}], "weight"),
    ("conv", [(X, W), (X, W, torch.zeros(3))], [{}, {}], "bias"),
    ("conv", [(X, W), (X, W)], [dict(padding_mode="zeros"), dict(padding_mode="circular")], "padding_mode"),
    ("conv", [(X, W), (X, W)], [dict(edge="zero"), dict(edge="reflect")], "edge"),
    ("conv", [(X, W), (torch.zeros(1, 2, 6, 4), W)], [{}, {}], "size of axis 3"),
    ("conv", [(X, W), (X.double(), W.double())], [{}, {}], "dtype"),
    ("conv_transpose", [(X, W[:2]), (X, W[:2])], [dict(padding=1), dict(padding=0)], "padding"),
    ("conv_transpose", [(X, W[:2]), (X, W[:2])], [dict(stride=2, output_padding=1), dict(stride=2)], "output_padding"),
])
def test_mismatch(name, tensors, options, text):
    for result in on_ranks(2, call, name, tensors, options):
        assert isinstance(result, Raised) and result.kind is ValueError and text in result.text, result
    returned(on_ranks(2, call, "conv", [(X, W)] * 2, [dict(padding=1)] * 2))


@pytest.mark.parametrize("name, tensors, options", [
    ("conv", (X, torch.zeros(3, 2, 20, 3)), dict(padding=1)),  # 12 rows + 2
    ("conv", (X, torch.zeros(3, 2, 3, 9)), dict(padding=1)),
    ("conv", (X, W), dict(dim=1)), ("conv", (X, W), dict(dim=0)), ("conv", (X, W), dict(dim=4)),
    ("conv", (X, W), dict(padding="same", stride=2)), ("conv", (X, W), dict(padding="full")),
    ("conv", (X, W), dict(edge="none")), ("conv", (X, W), dict(edge="mirror")), ("conv", (X, W), dict(padding=-1)),
    ("conv", (X, W), dict(stride=0)), ("conv", (X, W), dict(dilation=0)), ("conv", (X, W), dict(groups=2)),
    ("conv", (X, W), dict(groups=0)), ("conv", (X, W), dict(stride=(1, 1, 1))),
    ("conv", (X, W), dict(padding_mode="replicate")), ("conv", (X, W, torch.zeros(2)), {}),
    ("conv", (X, W.double()), {}), ("conv", (torch.zeros(1, 3, 6, 5), W), {}), ("conv", (X, torch.zeros(3, 2)), {}),
    ("conv", (X, torch.zeros(3, 2, 29, 3)), dict(padding=(13, 1), padding_mode="reflect")),
    ("conv", (X, W), dict(padding=(1, 5), padding_mode="reflect")),
    ("conv", (torch.zeros(1, 2, 0, 5), W), dict(padding=1)),
    ("conv", (X, W), dict(dim=-1, edge="fold", padding=1)),
    ("conv_transpose", (X, torch.zeros(2, 3, 3, 3)), dict(output_padding=1)),
    ("conv_transpose", (X, torch.zeros(2, 3, 3, 3)), dict(padding=7)),
    ("conv_transpose", (X, torch.zeros(3, 3, 3, 3)), {}), ("conv_transpose", (X, torch.zeros(2, 3, 3, 3)), dict(dim=1)),
])
def test_refused_with_one_text(name, tensors, options):
    results = on_ranks(2, call, name, [tensors] * 2, [options] * 2)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith(f"[{name}] "), results[0].text
    returned(on_ranks(2, call, "conv", [(X, W)] * 2, [dict(padding=1)] * 2))


def test_refused_where_one_rank_is_wrong():
    results = on_ranks(2, call, "conv", [(X, W)] * 2, [dict(padding=1), dict(padding=1, stride=0)])
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_dtypes(dtype, tolerance):
    for shape, case in (conv_case((2, 3, 30, 7), (4, 3, 3, 3), padding=1), transposed_case(
            (2, 3, 12, 5), (3, 2, 4, 4), stride=2, padding=1)):
        x = random(*shape, dtype=dtype)
        parameters = [one.to(dtype) for one in case.parameters]
        function = F.conv2d if case.name == "conv" else F.conv_transpose2d
        wanted = function(x.float(), *[one.float() for one in parameters], **case.arguments)
        sizes = cut(shape[-2], 3)
        results = returned(on_ranks(3, call, case.name, [(one, *parameters) for one in x.split(sizes, -2)],
                                    [case.arguments] * 3))
        assert all(one.dtype == dtype for one in results)
        torch.testing.assert_close(torch.cat(results, -2).float(), wanted, rtol=tolerance, atol=tolerance)


def under_autocast(x, weight, bias):
    with torch.autocast("cpu", torch.bfloat16):
        mine = part(x).clone().requires_grad_()
        y = halcyon.parallel.conv(mine, weight, bias, padding=1)
        z = halcyon.parallel.conv_transpose(y, weight)
    z.float().sum().backward()
    return y.detach(), z.detach(), mine.grad


def test_autocast():
    x, weight, bias = random(1, 3, 20, 6).float(), random(3, 3, 3, 3, seed=1).float(), random(3, seed=2).float()
    results = returned(on_ranks(2, under_autocast, x, weight, bias))
    with torch.autocast("cpu", torch.bfloat16):
        y = F.conv2d(x, weight, bias, padding=1)
    assert all(one[0].dtype == one[1].dtype == torch.bfloat16 and one[2].dtype == torch.float32 for one in results)
    torch.testing.assert_close(torch.cat([one[0] for one in results], -2), y, rtol=2e-2, atol=2e-2)


def one_needs_a_gradient(x, weight, who):
    mine = part(x).clone().requires_grad_(rank() == who)
    w = weight.clone().requires_grad_()
    halcyon.parallel.conv(mine, w, padding=1).pow(2).sum().backward()
    return mine.grad, w.grad


@pytest.mark.parametrize("rows", [3, 30])
def test_a_gradient_wanted_on_one_rank_only(rows):
    x, weight = random(1, 2, rows, 4), random(2, 2, 3, 3, seed=1)
    results = returned(on_ranks(2, one_needs_a_gradient, x, weight, 1))
    whole, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
    F.conv2d(whole, w, padding=1).pow(2).sum().backward()
    assert results[0][0] is None
    torch.testing.assert_close(results[1][0], part_of(whole.grad, 1))
    torch.testing.assert_close(results[0][1] + results[1][1], w.grad)


def only_the_weight(x, weight):
    w = weight.clone().requires_grad_()
    first, = torch.autograd.grad(halcyon.parallel.conv(part(x), w, padding=1).pow(3).sum(), w, create_graph=True)
    return first.detach(), torch.autograd.grad(first.sum(), w)[0]


@pytest.mark.parametrize("rows", [3, 30])
def test_a_first_layer(rows):
    """x needs no gradient on any rank."""
    x, weight = random(1, 2, rows, 4), random(2, 2, 3, 3, seed=1)
    results = returned(on_ranks(2, only_the_weight, x, weight))
    w = weight.clone().requires_grad_()
    first, = torch.autograd.grad(F.conv2d(x, w, padding=1).pow(3).sum(), w, create_graph=True)
    torch.testing.assert_close(results[0][0] + results[1][0], first.detach())
    torch.testing.assert_close(results[0][1] + results[1][1], torch.autograd.grad(first.sum(), w)[0])


def part_of(x, r):
    return x.tensor_split(2, -2)[r]


def strided(x, weight):
    return halcyon.parallel.conv(part(x).transpose(0, 1), weight, padding=1), \
        halcyon.parallel.conv(part(x).transpose(0, 1).to(memory_format=torch.channels_last), weight, padding=1)


def test_strides_and_channels_last():
    x, weight = random(3, 2, 30, 5), random(2, 3, 3, 3, seed=1)
    results = returned(on_ranks(2, strided, x, weight))
    wanted = F.conv2d(x.transpose(0, 1), weight, padding=1)
    for which in range(2):
        torch.testing.assert_close(torch.cat([one[which] for one in results], -2), wanted)


def twice(x, weight):
    """The same part here, another cut elsewhere."""
    first = halcyon.parallel.conv(part(x[..., :20, :], [10, 10]), weight, padding=1)
    other = halcyon.parallel.conv(part(x[..., :13, :], [10, 3]), weight, padding=1, stride=2)
    return first, other


def test_the_cut_may_change_from_call_to_call():
    x, weight = random(1, 2, 20, 5), random(2, 2, 3, 3, seed=1)
    results = returned(on_ranks(2, twice, x, weight))
    torch.testing.assert_close(torch.cat([one[0] for one in results], -2), F.conv2d(x, weight, padding=1))
    torch.testing.assert_close(torch.cat([one[1] for one in results], -2),
                               F.conv2d(x[..., :13, :], weight, padding=1, stride=2))


def test_alone():
    x, weight, bias = random(1, 2, 9, 5), random(3, 2, 3, 3, seed=1), random(3, seed=2)
    torch.testing.assert_close(halcyon.parallel.conv(x, weight, bias, 2, 1), F.conv2d(x, weight, bias, 2, 1))
    with pytest.raises(ValueError, match="stride"):
        halcyon.parallel.conv(x, weight, bias, "two")
    with pytest.raises(TypeError, match="ProcessGroup"):
        halcyon.parallel.conv(x, weight, group=3)
