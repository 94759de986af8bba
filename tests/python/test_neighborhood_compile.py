# SPDX-License-Identifier: Apache-2.0
"""Everything traces under torch.compile(fullgraph=True); aot_eager shows it without a compiler."""

import pytest
import torch
from conftest import near

import halcyon


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def heads_first(t):
    return t.movedim(-2, 1)


def unfused(q, k, v, *rest):
    attn = halcyon.na2d_qk(heads_first(q), heads_first(k), 3, is_causal=(True, False)).softmax(-1)
    return halcyon.na2d_av(attn, heads_first(v), 3, is_causal=(True, False))


def with_lse(q, k, v, *rest):
    out, lse = halcyon.na2d(q, k, v, 3, return_lse=True)
    return out * lse[..., None]


def merged(q, k, v, rpb, keys, values):
    near_by = halcyon.na2d(q, k, v, 3, return_lse=True)
    far = halcyon.attention(q.flatten(1, 2), keys, values, return_lse=True)
    return halcyon.merge_attentions([near_by[0].flatten(1, 2), far[0]], [near_by[1].flatten(1, 2), far[1]])[0]


def packed(q, k, v, *rest):
    q, k, v = (t[:1].flatten(1, 2) for t in (q, k, v))
    one = halcyon.attention(q, k, v, is_causal=True, seqlens_Q=[20, 10], seqlens_KV=[5, 25])
    return one + halcyon.na1d_varlen(q, k, v, 3, [4, 0, 26])


FUNCTIONS = {
    "na1d": lambda q, k, v, *rest: halcyon.na1d(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), 5, 2, 2),
    "na2d": lambda q, k, v, rpb, keys, values: 2 * halcyon.na2d(
        q.sin(), k, v, (3, 2), periodic=(False, True), rpb=rpb, additional_keys=keys, additional_values=values).cos(),
    "na2d with lse": with_lse,
    "na3d": lambda q, k, v, *rest: halcyon.na3d(q[:, None], k[:, None], v[:, None], (1, 3, 2),
                                                is_causal=(True, False, True)),
    "unfused": unfused,
    "merged": merged,
    "packed": packed,
    "healpix": lambda q, k, v, *rest: halcyon.neighborhood_attention_healpix(
        *(t.flatten(1, 2)[:, :12] for t in (q, k, v)), 0, rings=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    shapes = [(2, 5, 6, 2, 4)] * 3 + [(2, 5, 3)] + [(2, 3, 2, 4)] * 2
    x = [torch.randn(shape, requires_grad=True) for shape in shapes]
    function = FUNCTIONS[name]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for call in (function, compiled):
        y = call(*x)
        results.append([y, *torch.autograd.grad(y, x, torch.ones_like(y), allow_unused=True, materialize_grads=True)])
    for ours, wanted in zip(results[1], results[0]):
        near(ours, wanted, 1e-5)


@pytest.mark.parametrize("make, shape", [
    (lambda: halcyon.NeighborhoodAttention1D(8, 2, is_causal=True, fused=True), (2, 9, 8)),
    (lambda: halcyon.NeighborhoodAttention2D(8, 2, rel_pos_bias=True), (2, 5, 6, 8)),
    (lambda: halcyon.NeighborhoodAttention3D(8, 2, stride=2), (1, 3, 4, 5, 8)),
    (lambda: halcyon.NeighborhoodAttentionHEALPix(8, 2, level=1, rings=1), (1, 48, 8))],
    ids=["1D", "2D", "3D", "HEALPix"])
def test_modules(make, shape):
    module = make()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = torch.randn(shape)
    near(compiled(x), module(x), 1e-5)
    compiled(x).square().sum().backward()
    ours = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x).square().sum().backward()
    for gradient, parameter in zip(ours, module.parameters()):
        near(gradient, parameter.grad, 1e-5)


def test_another_shape_traces_again():
    compiled = torch.compile(lambda q, k, v: halcyon.na2d(q, k, v, 3), fullgraph=True, backend="aot_eager")
    for length in (5, 7, 8):
        x = [torch.randn(1, length, 4, 2, 4) for _ in range(3)]
        near(compiled(*x), halcyon.na2d(*x, 3), 1e-5)
