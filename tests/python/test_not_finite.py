# SPDX-License-Identifier: Apache-2.0
"""What no window holds changes nothing: NaN and infinities in keys and values that a query does not see leave its
result and its gradients as they are, on every path, and those of keys and values that only such queries see."""

import functools

import pytest
import torch
from ranks import on_ranks, part, returned
from torch.autograd import forward_ad

import halcyon

NUMBERS = [float("nan"), float("inf"), float("-inf")]
TYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]
BACKENDS = [None, "reference", "tiled", "gemm"]


def seen_by(f, tokens, width):
    """(queries, keys) bool of f(q, k, v): the values that move a query's result when their tokens move."""
    q, k = (torch.zeros(1, tokens, 1, width, dtype=torch.float64) for _ in range(2))
    one_hot = torch.eye(tokens, dtype=torch.float64).view(1, tokens, 1, tokens)
    return f(q, k, one_hot)[0, :, 0] > 0


def attended(f, q, k, v, g):
    q, k, v = (t.clone().requires_grad_() for t in (q, k, v))
    y = f(q, k, v)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), g)]


def check(f, seen, places, operands, bound=0.0):
    """f of q, k, v with tokens on axis 1 and the gradient of its result. Those who see the places get NaN back."""
    q, k, v, g = operands
    clean = attended(f, *operands)
    for number in NUMBERS:
        spoiled = seen[:, places].any(1)
        lost = seen[spoiled].any(0)
        k2, v2, g2 = k.clone(), v.clone(), g.clone()
        k2[:, places] = v2[:, places] = number
        g2[:, spoiled] = float("nan")
        result = attended(f, q, k2, v2, g2)
        for name, a, b, keep in zip(("result", "query", "key", "value"), result, clean,
                                    (~spoiled, ~spoiled, ~lost, ~lost)):
            torch.testing.assert_close(a[:, keep], b[:, keep], rtol=bound, atol=bound,
                                       msg=lambda text, of=f"{number} {name}": f"{of}: {text}")
        if number != number:
            assert result[0][:, spoiled].isnan().all()


def draw(tokens, dtype, keys=None, heads=2, groups=2, width=8):
    of = lambda n, h: torch.randn(2, n, h, width, dtype=torch.float64).to(dtype)
    keys = tokens if keys is None else keys
    return of(tokens, heads), of(keys, groups), of(keys, groups), of(tokens, heads)


WINDOWS = [((40,), dict(kernel_size=5)), ((40,), dict(kernel_size=4, is_causal=True, dilation=3)),
           ((40,), dict(kernel_size=7, stride=3)), ((40,), dict(kernel_size=6, periodic=True, dilation=2)),
           ((24,), dict(kernel_size=24, is_causal=True)), ((24,), dict(kernel_size=12, dilation=2)),
           ((9, 20), dict(kernel_size=5)), ((9, 20), dict(kernel_size=(3, 5), is_causal=(True, False))),
           ((8, 20), dict(kernel_size=(3, 4), dilation=(2, 5), is_causal=(False, True))),
           ((9, 20), dict(kernel_size=(9, 3), periodic=(False, True))),
           ((4, 5, 8), dict(kernel_size=(3, 2, 3), is_causal=(False, True, False)))]


def attend(shape, backend, window, q, k, v):
    grid = lambda t: t.unflatten(1, shape)
    return getattr(halcyon, f"na{len(shape)}d")(grid(q), grid(k), grid(v), backend=backend, **window).flatten(1, -3)


@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape, window", WINDOWS, ids=str)
def test_windows(shape, window, backend, dtype):
    f = functools.partial(attend, shape, backend, window)
    tokens = torch.Size(shape).numel()
    seen = seen_by(functools.partial(attend, shape, "reference", window), tokens, 4)
    for places in ([0], [tokens - 1], [tokens // 2, tokens // 3]):
        check(f, seen, places, draw(tokens, dtype))


def unfused(shape, window, q, k, v):
    grid = lambda t: t.unflatten(1, shape).movedim(-2, 1)
    rank, window = len(shape), dict(window)
    attn = getattr(halcyon, f"na{rank}d_qk")(grid(q), grid(k), **window).softmax(-1)
    return getattr(halcyon, f"na{rank}d_av")(attn, grid(v), **window).movedim(1, -2).flatten(1, -3)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("dtype", TYPES[:2], ids=str)
@pytest.mark.parametrize("shape, window", [one for one in WINDOWS if not {"stride", "periodic"} & one[1].keys()],
                         ids=str)
def test_unfused(shape, window, dtype, tiled):
    tokens = torch.Size(shape).numel()
    f = functools.partial(unfused, shape, window)
    seen = seen_by(functools.partial(attend, shape, "reference", window), tokens, 4)
    halcyon.disable_tiled_na() if not tiled else None
    try:
        for places in ([0], [tokens - 1], [tokens // 2, tokens // 3]):
            check(f, seen, places, draw(tokens, dtype))
    finally:
        halcyon.enable_tiled_na()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_plain_attention(dtype):
    causal = functools.partial(halcyon.attention, is_causal=True)
    bound = 2e-2 if dtype == torch.bfloat16 else 2e-3 if dtype == torch.float16 else 1e-5
    for places in ([11], [5], [6, 10]):
        check(causal, torch.ones(12, 12).tril() > 0, places, draw(12, dtype))
        check(causal, torch.ones(9, 14).tril() > 0, places[:1], draw(9, dtype, keys=14, heads=4), bound)
        check(causal, torch.ones(14, 9).tril() > 0, [7], draw(14, dtype, keys=9), bound)
    packed = torch.block_diag(torch.ones(5, 5), torch.ones(7, 7)) > 0
    one = [t[:1] for t in draw(12, dtype)]
    check(lambda q, k, v: halcyon.attention(q, k, v, seqlens_Q=[5, 7], seqlens_KV=[5, 7]), packed, [6], one)
    windows = torch.block_diag(*(seen_by(lambda q, k, v: halcyon.na1d(q, k, v, 3), n, 4) for n in (5, 7)))
    check(lambda q, k, v: halcyon.na1d_varlen(q, k, v, 3, [5, 7]), windows, [6], one)
    unlike = torch.block_diag(torch.ones(5, 4).tril(), torch.ones(7, 9).tril()) > 0
    one = [t[:1] for t in draw(12, dtype, keys=13)]
    check(lambda q, k, v: halcyon.attention(q, k, v, is_causal=True, seqlens_Q=[5, 7], seqlens_KV=[4, 9]), unlike, [6],
          one, bound)


def test_a_sequence_without_keys():
    q, none = torch.randn(1, 4, 2, 8), torch.empty(1, 0, 2, 8)
    q[0, 1] = float("nan")
    assert (halcyon.attention(q, none, none) == 0).all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("window", [dict(level=3, rings=1), dict(level=2, radius_deg=35.0, order="pad_xy"),
                                    dict(level=3, radius_deg=20.0, region=torch.arange(100, 260))], ids=str)
def test_sphere(window, dtype):
    f = functools.partial(halcyon.neighborhood_attention_healpix, **window)
    pixels = len(window["region"]) if "region" in window else 12 * 4 ** window["level"]
    seen = seen_by(f, pixels, 4)
    for places in ([0], [pixels - 1], [pixels // 2, pixels // 3]):
        check(f, seen, places, draw(pixels, dtype, groups=1))


@pytest.mark.parametrize("norm", [None, "RMSNorm"])
def test_masked_self_attention(norm):
    """A token that nobody but itself attends to, of a whole layer: what its row holds stays there."""
    layer = halcyon.SelfAttention(16, 2, qk_norm_type=norm)
    x = torch.randn(1, 12, 16)
    dirty = x.clone()
    dirty[0, 5] = float("nan")
    keep = torch.arange(12) != 5
    seen = torch.ones(12, 12, dtype=torch.bool)
    seen[keep, 5] = False
    for mask in (seen, torch.zeros(12, 12).masked_fill(~seen, float("-inf"))):
        results = [layer(one, mask)[:, keep] for one in (x, dirty)]
        torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("f, seen", [
    (functools.partial(halcyon.attention, is_causal=True), torch.ones(12, 12).tril() > 0),
    (functools.partial(halcyon.na1d, kernel_size=3, is_causal=True, dilation=2), None),
    (functools.partial(halcyon.neighborhood_attention_healpix, level=1, rings=1), None)])
def test_forward_mode(f, seen):
    tokens = 48 if "level" in f.keywords else 12
    seen = seen_by(f, tokens, 4) if seen is None else seen
    q, k, v, g = draw(tokens, torch.float64)
    spoiled = seen[:, 5]
    tangents = [torch.randn_like(t) for t in (q, k, v)]
    results = []
    for number in (0.0, *NUMBERS):
        a, b, c = q.clone(), k.clone(), v.clone()
        if number != 0:
            b[:, 5] = c[:, 5] = number
        with forward_ad.dual_level():
            y = f(*(forward_ad.make_dual(t, d) for t, d in zip((a, b, c), tangents)))
            results.append([t[:, ~spoiled] for t in forward_ad.unpack_dual(y)])
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


@pytest.mark.parametrize("grouped", [False, True])
def test_pixels(grouped):
    cu = halcyon.counts_to_cu_seqlens(torch.tensor([3, 0, 4, 1, 2]))
    groups = halcyon.build_pixel_group_map(cu) if grouped else None
    Q, tokens, W = torch.randn(5, 16, 8), torch.randn(10, 6), (torch.randn(8, 6), torch.randn(8, 6))
    pixels, rows = torch.tensor([0, 1, 3, 4]), torch.tensor([0, 1, 2, 7, 8, 9])
    results = []
    for number in (0.0, *NUMBERS):
        a, b = Q.clone().requires_grad_(), tokens.clone()
        if number != 0:
            b[3:7] = number
        b.requires_grad_()
        y = halcyon.pixel_attention(a, b, *W, cu, 4, group_map=groups)
        y.square().sum().backward()
        results.append((y[pixels], a.grad[pixels], b.grad[rows]))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


def test_dropped_weights_on_the_sphere():
    layer = halcyon.NeighborhoodAttentionHEALPix(8, 2, level=1, rings=1, attn_drop=0.3)
    seen = seen_by(functools.partial(halcyon.neighborhood_attention_healpix, level=1, rings=1), 48, 4)
    results = []
    for number in (0.0, *NUMBERS):
        x = torch.ones(1, 48, 8).cumsum(1) / 48
        if number != 0:
            x[:, 7] = number
        torch.manual_seed(3)
        x.requires_grad_()
        y = layer(x)
        results.append((y[:, ~seen[:, 7]].detach(), torch.autograd.grad(y.square().sum(), x)[0][:, 40:]))
    assert not seen[seen[:, 7]].any(0)[40:].any()
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def parallel_attend(name, operands, options, sizes, dim):
    q, k, v, g = (part(t, sizes, dim).clone() for t in operands)
    f = getattr(halcyon.parallel, name)
    return attended(lambda *qkv: f(*qkv, **options), q, k, v, g)


@pytest.mark.parametrize("name, dim, layout, options", [
    ("na1d", 1, lambda t: t, dict(kernel_size=5)),
    ("na1d", 1, lambda t: t, dict(kernel_size=4, is_causal=True, dilation=2)),
    ("neighborhood_attention_healpix", 1, lambda t: t, dict(level=1, rings=1)),
    ("scaled_dot_product_attention", 2, lambda t: t.transpose(1, 2), dict(is_causal=True))])
def test_over_ranks(name, dim, layout, options):
    tokens, sizes = 48, [20, 16, 12]
    if name.startswith("scaled"):
        seen = torch.ones(tokens, tokens).tril() > 0
    else:
        seen = seen_by(functools.partial(getattr(halcyon, name), **options), tokens, 4)
    q, k, v, g = draw(tokens, torch.float32)

    def run(q, k, v, g):
        results = returned(on_ranks(3, parallel_attend, name, [layout(t).contiguous() for t in (q, k, v, g)], options,
                                    sizes, dim))
        return [layout(torch.cat(one, dim)) for one in zip(*results)]

    clean = run(q, k, v, g)
    for place in (1, 30, 47):
        spoiled = seen[:, place]
        lost = seen[spoiled].any(0)
        for number in NUMBERS[:2]:
            k2, v2, g2 = k.clone(), v.clone(), g.clone()
            k2[:, place] = v2[:, place] = number
            g2[:, spoiled] = float("nan")
            for a, b, keep in zip(run(q, k2, v2, g2), clean, (~spoiled, ~spoiled, ~lost, ~lost)):
                torch.testing.assert_close(a[:, keep], b[:, keep])
