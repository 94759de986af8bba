# SPDX-License-Identifier: Apache-2.0
"""Neighbourhood attention and ring attention over ranks, against the whole in one process."""

import os
import pathlib

import pytest
import torch
from safetensors import safe_open

import halcyon
from ranks import Raised, on_ranks, part, rank, returned

SHARED = os.environ.get("HALCYON_SHARED_DIR", pathlib.Path(__file__).parents[3] / "shared")
GOLDEN = os.path.join(SHARED, "golden/parallel/ref_attention.safetensors")
needs_goldens = pytest.mark.skipif(not os.path.exists(GOLDEN), reason="no goldens")


def golden(case):
    with safe_open(GOLDEN, "pt") as file:
        return {name: file.get_tensor(f"{case}.{name}") for name in ("q", "k", "v", "g", "y", "dq", "dk", "dv")}


def cuts(length):
    """Even, uneven, thin and empty parts for 2, 3 and 4 ranks."""
    even = [[len(one) for one in torch.arange(length).tensor_split(n)] for n in (2, 3, 4)]
    return even + [[1, length - 1], [0, length], [length - 3, 1, 2], [2, 0, length - 2], [length - 3, 1, 1, 1],
                   [0, 0, length, 0]]


def attended(operation, dim, sizes, q, k, v, g, more, options):
    q, k, v = (part(one, sizes, dim).clone().requires_grad_() for one in (q, k, v))
    more = {name: one.clone().requires_grad_() for name, one in more.items()}
    out = getattr(halcyon.parallel, operation)(q, k, v, **more, **options)
    results = out if isinstance(out, tuple) else (out,)
    cotangents = [part(one, sizes, dim) for one in g]
    grads = torch.autograd.grad(results, (q, k, v, *more.values()), cotangents)
    return [one.detach() for one in results], grads[:3], grads[3:]


def compare(operation, dim, sizes, q, k, v, options, more=None, bound=1e-11):
    """Results and gradients of the parts against the operator on the whole; of what is whole on every rank the sums."""
    more, local = more or {}, {name: one for name, one in options.items() if name != "shard_dim"}
    whole = [one.clone().requires_grad_() for one in (q, k, v, *more.values())]
    expected = getattr(halcyon, operation)(*whole[:3], **dict(zip(more, whole[3:])), **local)
    expected = expected if isinstance(expected, tuple) else (expected,)
    generator = torch.Generator().manual_seed(9)
    g = [torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype) for one in expected]
    grads = torch.autograd.grad(expected, whole, g)
    results = returned(on_ranks(len(sizes), attended, operation, dim, sizes, q, k, v, g, more, options))
    for i, one in enumerate(expected):
        torch.testing.assert_close(torch.cat([result[0][i] for result in results], dim), one, rtol=bound, atol=bound)
    for i in range(3):
        torch.testing.assert_close(torch.cat([one[1][i] for one in results], dim), grads[i], rtol=bound, atol=bound)
    for i, one in enumerate(grads[3:]):
        torch.testing.assert_close(sum(result[2][i] for result in results), one, rtol=bound, atol=bound)


def operands(*spatial, heads=2, key_heads=2, width=3, value_width=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(sum(spatial))
    return [torch.randn(2, *spatial, h, c, generator=generator, dtype=torch.float64).to(dtype)
            for h, c in ((heads, width), (key_heads, width), (key_heads, value_width))]


@needs_goldens
@pytest.mark.parametrize("sizes", cuts(24), ids=str)
@pytest.mark.parametrize("case, options", [
    ("na2d_k3x3_d1", {"kernel_size": (3, 3)}), ("na2d_k5x5_d1", {"kernel_size": (5, 5)}),
    ("na2d_k7x3_d1", {"kernel_size": (7, 3)}), ("na2d_k3x3_d2", {"kernel_size": (3, 3), "dilation": 2}),
    ("na2d_k3x5_d1_causal", {"kernel_size": (3, 5), "is_causal": (True, False)}),
])
def test_reference(case, options, sizes):
    one = golden(case)
    results = returned(on_ranks(len(sizes), attended, "na2d", 1, sizes, one["q"], one["k"], one["v"], [one["g"]], {},
                                options))
    torch.testing.assert_close(torch.cat([result[0][0] for result in results], 1), one["y"], rtol=1e-11, atol=1e-11)
    for i, name in enumerate(("dq", "dk", "dv")):
        torch.testing.assert_close(torch.cat([result[1][i] for result in results], 1), one[name], rtol=1e-11,
                                   atol=1e-11)


WINDOWS = [{"kernel_size": kernel, "dilation": dilation, "stride": stride, "is_causal": causal, "periodic": periodic}
           for kernel in (1, 2, 3, 4, 7) for dilation in (1, 2, 3) for stride in (1, 2, 3)
           for causal in (False, True) for periodic in (False, True)
           if stride <= kernel and kernel * dilation <= 16
           and not (periodic and (causal or stride > 1 or dilation == 3))]


@pytest.mark.parametrize("sizes", cuts(16), ids=str)
def test_every_window(sizes):
    q, k, v = operands(16)
    for window in WINDOWS:
        compare("na1d", 1, sizes, q, k, v, {**window, "return_lse": True})


@pytest.mark.parametrize("sizes", [[7, 6], [5, 4, 4], [1, 12], [2, 0, 9, 2]], ids=str)
def test_windows_on_an_odd_axis(sizes):
    q, k, v = operands(13, heads=4, value_width=2)
    for window in [{"kernel_size": 4, "dilation": 3}, {"kernel_size": 5, "dilation": 2, "stride": 4},
                   {"kernel_size": 6, "dilation": 2, "stride": 3, "is_causal": True}, {"kernel_size": 13},
                   {"kernel_size": 13, "is_causal": True}, {"kernel_size": 13, "periodic": True},
                   {"kernel_size": 13, "stride": 13}, {"kernel_size": 1, "dilation": 13}]:
        compare("na1d", 1, sizes, q, k, v, window)


@pytest.mark.parametrize("backend", [None, "tiled", "gemm", "reference"])
@pytest.mark.parametrize("shard_dim, sizes", [(1, [4, 5]), (1, [1, 7, 1]), (2, [3, 4, 4]), (2, [10, 0, 1, 0])], ids=str)
def test_two_axes_and_everything_that_na_takes(shard_dim, sizes, backend):
    q, k, v = operands(9, 11, heads=4, value_width=4)
    generator = torch.Generator().manual_seed(1)
    rpb = torch.randn(4, 5, 9, generator=generator, dtype=torch.float64)
    keys = torch.randn(2, 3, 2, 3, generator=generator, dtype=torch.float64)
    values = torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    common = {"kernel_size": (3, 5), "dilation": (3, 1), "backend": backend, "shard_dim": shard_dim}
    compare("na2d", shard_dim, sizes, q, k, v, {**common, "return_lse": True, "scale": 0.7},
            {"rpb": rpb, "additional_keys": keys, "additional_values": values})
    compare("na2d", shard_dim, sizes, q, k, v, {**common, "periodic": (True, True)}, {"rpb": rpb})


@pytest.mark.parametrize("shard_dim", [1, 2, 3])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_three_axes(n, shard_dim):
    q, k, v = operands(6, 5, 7)
    sizes = [len(one) for one in torch.arange((6, 5, 7)[shard_dim - 1]).tensor_split(n)]
    compare("na3d", shard_dim, sizes, q, k, v, {"kernel_size": (3, 2, 3), "dilation": (1, 2, 2), "shard_dim": shard_dim,
                                                "is_causal": (True, False, False)})


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_other_types(dtype, bound):
    q, k, v = operands(16, 5, dtype=dtype)
    compare("na2d", 1, [7, 1, 8], q, k, v, {"kernel_size": 5}, bound=bound)


def na_of(qs, keywords):
    q = qs[rank()]
    return halcyon.parallel.na2d(q, q, q, **keywords[rank()])


@pytest.mark.parametrize("keywords", [
    {"kernel_size": (9, 3)}, {"kernel_size": (3, 3), "dilation": (3, 1)}, {"kernel_size": 3, "shard_dim": 3},
    {"kernel_size": 3, "shard_dim": 0}, {"kernel_size": 3, "stride": 4},
    {"kernel_size": 3, "dilation": (3, 1), "periodic": True}, {"kernel_size": 0},
])
def test_what_cannot_be_done_is_refused_with_one_text(keywords):
    results = on_ranks(2, na_of, [torch.zeros(1, 4, 6, 1, 2)] * 2, [keywords] * 2)
    assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
    assert results[0].text == results[1].text and results[0].text.startswith("[na2d] expected")
    assert returned(on_ranks(2, na_of, [torch.zeros(1, 4, 6, 1, 2)] * 2, [{"kernel_size": 5}] * 2))[0].size(1) == 4


@pytest.mark.parametrize("second, keywords", [
    (torch.zeros(1, 4, 5, 1, 2), {}), (torch.zeros(1, 4, 6, 1, 2).double(), {}), (torch.zeros(1, 4, 6, 2), {}),
    (torch.zeros(1, 4, 6, 1, 2), {"kernel_size": 5}), (torch.zeros(1, 4, 6, 1, 2), {"dilation": 2}),
    (torch.zeros(1, 4, 6, 1, 2), {"is_causal": True}), (torch.zeros(1, 4, 6, 1, 2), {"shard_dim": 2}),
    (torch.zeros(1, 4, 6, 1, 2), {"periodic": True}), (torch.zeros(1, 4, 6, 1, 2), {"scale": 1.0}),
    (torch.zeros(1, 4, 6, 1, 2), {"rpb": torch.zeros(1, 5, 5)}),
])
def test_mismatch_is_an_error_on_every_rank(second, keywords):
    options = [{"kernel_size": 3}, {"kernel_size": 3, **keywords}]
    for one in on_ranks(2, na_of, [torch.zeros(1, 4, 6, 1, 2), second], options):
        assert isinstance(one, Raised) and one.kind is ValueError, one


def twice(q):
    q = part(q, dim=1).clone().requires_grad_()
    first, = torch.autograd.grad(halcyon.parallel.na1d(q, q, q, 3).pow(2).sum(), q, create_graph=True)
    torch.autograd.grad(first.sum(), q)


def test_second_derivatives_of_neighbourhood_attention_are_refused():
    for one in on_ranks(2, twice, operands(8)[0]):
        assert isinstance(one, Raised) and "neighborhood attention" in one.text, one


def in_a_subgroup(q):
    """Ranks 0 and 2 of three; from strided tensors."""
    group = torch.distributed.new_group([0, 2])
    if rank() == 1:
        return None
    q = q.tensor_split(2, 1)[torch.distributed.get_rank(group)]
    strided = q.transpose(1, 2).contiguous().transpose(1, 2)
    return (halcyon.parallel.na1d(strided, q, strided, 5, group=group),
            halcyon.parallel.scaled_dot_product_attention(strided.transpose(1, 2), q.transpose(1, 2),
                                                          strided.transpose(1, 2), True, group=group))


def test_subgroups_and_strides():
    q = operands(9)[0]
    first, _, second = returned(on_ranks(3, in_a_subgroup, q))
    torch.testing.assert_close(torch.cat([first[0], second[0]], 1), halcyon.na1d(q, q, q, 5))
    q = q.transpose(1, 2)
    torch.testing.assert_close(torch.cat([first[1], second[1]], 2),
                               torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True))


def needs_gradient_on_one(q, k, v):
    q, k, v = (part(one, dim=1).clone() for one in (q, k, v))
    if rank() == 0:
        k.requires_grad_()
    halcyon.parallel.na1d(q, k, v, 5).pow(2).sum().backward()
    return k.grad


def test_a_gradient_wanted_on_one_rank_only():
    q, k, v = operands(9)
    k.requires_grad_()
    halcyon.na1d(q, k, v, 5).pow(2).sum().backward()
    grads = returned(on_ranks(3, needs_gradient_on_one, q, k.detach(), v))
    torch.testing.assert_close(grads[0], k.grad[:, :3])
    assert grads[1] is None and grads[2] is None


# Ring attention


def whole_attention(q, k, v, causal, scale=None):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # which has second derivatives
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale,
                                                                enable_gqa=k.size(1) != q.size(1))


def ring(sizes, key_sizes, q, k, v, g, options, second):
    q = part(q, sizes, 2).clone().requires_grad_()
    k, v = (part(one, key_sizes, 2).clone().requires_grad_() for one in (k, v))
    out = halcyon.parallel.scaled_dot_product_attention(q, k, v, **options)
    if not second:
        return (out.detach(), *torch.autograd.grad(out, (q, k, v), part(g, sizes, 2)))
    loss = (out.pow(2) * part(g, sizes, 2)).sum()
    first = torch.autograd.grad(loss, (q, k, v), create_graph=True)
    again = torch.autograd.grad(sum(one.pow(3).sum() for one in first), (q, k, v))
    return (out.detach(), *(one.detach() for one in first), *again)


def heads_first(queries, keys=None, heads=4, key_heads=4, width=8, value_width=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(queries)
    shapes = [(heads, queries, width), (key_heads, keys or queries, width), (key_heads, keys or queries, value_width),
              (heads, queries, value_width)]
    return [torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def compare_ring(sizes, key_sizes, given, options, second=False, bound=1e-11):
    q, k, v = (one.clone().requires_grad_() for one in given[:3])
    out = whole_attention(q, k, v, options.get("is_causal", False), options.get("scale"))
    if second:
        first = torch.autograd.grad((out.pow(2) * given[3]).sum(), (q, k, v), create_graph=True)
        again = torch.autograd.grad(sum(one.pow(3).sum() for one in first), (q, k, v))
        expected = out, *first, *again
    else:
        expected = out, *torch.autograd.grad(out, (q, k, v), given[3])
    results = returned(on_ranks(len(sizes), ring, sizes, key_sizes, *given, options, second))
    for i, one in enumerate(expected):
        torch.testing.assert_close(torch.cat([result[i] for result in results], 2), one.detach(), rtol=bound,
                                   atol=bound)


@needs_goldens
@pytest.mark.parametrize("sizes", cuts(24), ids=str)
def test_ring_reference(sizes):
    one = golden("ring_sdpa")
    results = returned(on_ranks(len(sizes), ring, sizes, sizes, one["q"], one["k"], one["v"], one["g"], {}, False))
    for i, name in enumerate(("y", "dq", "dk", "dv")):
        torch.testing.assert_close(torch.cat([result[i] for result in results], 2), one[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sizes", cuts(19) + [[19]], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads, value_width", [(4, 8), (2, 8), (1, 5)])
def test_ring_equals_one_process(key_heads, value_width, causal, sizes):
    given = heads_first(19, key_heads=key_heads, value_width=value_width)
    compare_ring(sizes, sizes, given, {"is_causal": causal})
    compare_ring(sizes, sizes, given, {"is_causal": causal, "scale": 0.5}, second=True, bound=1e-9)


def test_ring_with_other_keys():
    for key_sizes in ([4, 3, 4], [0, 10, 1]):
        compare_ring([2, 0, 7], key_sizes, heads_first(9, 11), {})


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_ring_of_other_types(dtype, bound):
    for causal in (False, True):
        compare_ring([7, 1, 9], [7, 1, 9], heads_first(17, dtype=dtype), {"is_causal": causal}, bound=bound)


def ring_under_autocast(q, k, v):
    q, k, v = (part(one, dim=2).clone().requires_grad_() for one in (q, k, v))
    with torch.autocast("cpu", torch.bfloat16):
        out = halcyon.parallel.scaled_dot_product_attention(q, k, v)
    out.float().sum().backward()
    return out.detach(), q.grad


def test_ring_under_autocast():
    q, k, v, _ = heads_first(11, dtype=torch.float32)
    wanted = whole_attention(*(one.bfloat16().double() for one in (q, k, v)), False)
    results = returned(on_ranks(2, ring_under_autocast, q, k, v))
    assert all(one[0].dtype == torch.bfloat16 and one[1].dtype == torch.float32 for one in results)
    # the operands are rounded, and the result; sums and exponentials are not
    torch.testing.assert_close(torch.cat([one[0] for one in results], 2).double(), wanted, rtol=4.1e-3, atol=1e-4)


def ring_of(qs, ks, keywords):
    return halcyon.parallel.scaled_dot_product_attention(qs[rank()], ks[rank()], ks[rank()], **keywords[rank()])


@pytest.mark.parametrize("second, keywords", [
    (torch.zeros(1, 2, 4, 3), {}), (torch.zeros(1, 4, 4, 4), {}), (torch.zeros(1, 2, 4, 4).double(), {}),
    (torch.zeros(1, 2, 4, 4), {"is_causal": True}), (torch.zeros(1, 2, 4, 4), {"scale": 2.0}),
    (torch.zeros(1, 2, 4, 4), {"dim": 1}), (torch.zeros(2, 4, 4), {}),
])
def test_ring_with_a_mismatch(second, keywords):
    qs = [torch.zeros(1, 2, 4, 4), second]
    for one in on_ranks(2, ring_of, qs, qs, [{}, keywords]):
        assert isinstance(one, Raised) and one.kind is ValueError, one


def test_ring_that_cannot_be_done():
    qs, ks = [torch.zeros(1, 3, 4, 4)] * 2, [torch.zeros(1, 2, 4, 4)] * 2
    causal = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 4)], [torch.zeros(1, 3, 2, 4), torch.zeros(1, 3, 4, 4)]
    for results in (on_ranks(2, ring_of, qs, ks, [{}, {}]), on_ranks(2, ring_of, qs, qs, [{"dim": 0}] * 2),
                    on_ranks(2, ring_of, *causal, [{"is_causal": True}] * 2)):
        assert all(isinstance(one, Raised) and one.kind is ValueError for one in results), results
        assert results[0].text == results[1].text
    assert returned(on_ranks(2, ring_of, qs, qs, [{}, {}]))[0].shape == (1, 3, 4, 4)


def ring_gradient_on_one(q, k, v):
    q, k, v = (part(one, dim=2).clone() for one in (q, k, v))
    if rank() == 1:
        v.requires_grad_()
    halcyon.parallel.scaled_dot_product_attention(q, k, v).pow(2).sum().backward()
    return v.grad


def test_ring_gradient_wanted_on_one_rank_only():
    q, k, v, _ = heads_first(9)
    v.requires_grad_()
    whole_attention(q, k, v, False).pow(2).sum().backward()
    grads = returned(on_ranks(3, ring_gradient_on_one, q, k, v.detach()))
    torch.testing.assert_close(grads[1], v.grad[:, :, 3:6])
    assert grads[0] is None and grads[2] is None
