# SPDX-License-Identifier: Apache-2.0
"""na1d, na2d and na3d against the reference: goldens, random problems, threads, backends, requires_grad."""

import functools
import random

import neighborhood_goldens as goldens
import pytest
import torch
from conftest import near
from neighborhood_problems import DTYPES, Problem, compare, draw, expected

import halcyon

#          dtype: (out, lse, gradient), relative to the largest value
BOUNDS = {torch.float64: (1e-12, 1e-12, 1e-11),
          torch.float32: (5e-6, 5e-6, 2e-5),
          torch.bfloat16: (8e-3, 5e-6, 3e-2),
          torch.float16: (1e-3, 5e-6, 4e-3)}
BACKENDS = (None, "reference", "tiled", "gemm")


def operator(axes):
    return getattr(halcyon, f"na{axes}d")


def with_lse(axes, backend=None):
    return lambda **arguments: operator(axes)(**arguments, return_lse=True, backend=backend)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("file, name", goldens.FUSED)
def test_goldens(shared, file, name, backend):
    config, x = goldens.case(shared, file, name)
    leaves = {k: t for k, t in (x | goldens.fused_options(config, x)).items()
              if k in goldens.FUSED_GRADIENTS and isinstance(t, torch.Tensor)}
    for dtype in (torch.float64, torch.float32):
        forward, for_lse, backward = BOUNDS[dtype]
        own = {k: t.detach().to(dtype).requires_grad_() for k, t in leaves.items()}
        out, lse = with_lse(config["dims"], backend)(**(goldens.fused_options(config, x) | own))
        assert out.dtype == lse.dtype == dtype
        near(out, x["out"], forward)
        near(lse, x["lse"], for_lse)
        out.backward(x["d_out"].to(dtype))
        for k, t in own.items():
            near(t.grad, x[goldens.FUSED_GRADIENTS[k]], backward)


@pytest.mark.parametrize("seed", range(384))
def test_random_problem(seed):
    """Seeds run through 3 ranks, 4 dtypes and 4 backends."""
    problem = draw(seed)
    found = problem.run(with_lse(1 + seed % 3, BACKENDS[seed // 12 % 4]))
    assert found["out"].dtype == problem.dtype
    assert found["lse"].dtype == (torch.float64 if problem.dtype == torch.float64 else torch.float32)
    compare(problem, found, expected(problem), *BOUNDS[problem.dtype])


LARGE = {"plain": {},
         "bias and additional tokens": dict(more=dict(rpb=[4, 9, 13], additional_keys=[1, 9, 2, 20],
                                                      additional_values=[1, 9, 2, 12])),
         "dilated, causal, periodic": dict(lengths=(23, 40), dilation=(3, 2), is_causal=(True, False),
                                           periodic=(False, True)),
         "strided": dict(stride=(3, 7)),
         "full": dict(kernel=(9, 31), lengths=(9, 31)),
         "full, as wide values, additional tokens": dict(
             kernel=(9, 31), lengths=(9, 31), more=dict(value=[1, 9, 31, 2, 20], additional_keys=[1, 9, 2, 20],
                                                        additional_values=[1, 9, 2, 20])),
         "one axis": dict(kernel=67, lengths=(700,))}


@functools.cache
def large(case, dtype):
    """Enough work for several threads: (problem, expected)."""
    options = dict(kernel=(5, 7), lengths=(23, 41), more={}) | LARGE[case]
    shape, heads, d, e = [1, *options.pop("lengths")], 4, 20, 12
    shapes = dict(query=[*shape, heads, d], key=[*shape, 2, d], value=[*shape, 2, e]) | options.pop("more")
    problem = Problem(shapes, dict(kernel_size=options.pop("kernel")) | options, dtype, random.Random(3), ["plain"])
    problem.through = "both"
    return problem, expected(problem)


@pytest.mark.parametrize("case", LARGE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit_and_backends_agree(threads, dtype, backend, case):
    problem, wanted = large(case, dtype)
    results = []
    for number in (1, 2, 3):
        threads(number)
        results.append(problem.run(with_lse(len(problem.shapes["query"]) - 3, backend)))
    for other in results[1:]:
        assert [name for name, tensor in results[0].items() if not torch.equal(other[name], tensor)] == []
    compare(problem, results[0], wanted, *BOUNDS[dtype])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_one_operand_alone_may_require_a_gradient(axes):
    shape = [2, *[4] * axes]
    shapes = dict(query=[*shape, 4, 3], key=[*shape, 2, 3], value=[*shape, 2, 5], rpb=[4, *[5] * axes],
                  additional_keys=[2, 3, 2, 3], additional_values=[2, 3, 2, 5])
    problem = Problem(shapes, dict(kernel_size=3), torch.float64, random.Random(1))
    tensors = {name: t.detach() for name, t in problem.leaves().items()}
    for name in tensors:
        own = tensors | {name: tensors[name].clone().requires_grad_()}
        every = {k: t.clone().requires_grad_() for k, t in tensors.items()}
        for operands in (own, every):
            operator(axes)(**operands, **problem.options).square().sum().backward()
        near(own[name].grad, every[name].grad, 1e-13)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results(axes, dtype):
    """Shapes, dtypes, one value for all axes, lists, None and zero as scale, and the pair only when asked for."""
    x = [torch.randn(2, *[5] * axes, 2, width, dtype=dtype) for width in (3, 3, 4)]
    plain = operator(axes)(*x, 3)
    assert isinstance(plain, torch.Tensor) and plain.shape == (2, *[5] * axes, 2, 4) and plain.dtype == dtype
    assert not plain.requires_grad
    out, lse = operator(axes)(*x, 3, return_lse=True)
    assert torch.equal(out, plain) and lse.shape == (2, *[5] * axes, 2)
    assert torch.equal(plain, operator(axes)(*x, [3] * axes, [1] * axes, (1,) * axes, [False] * axes, (False,) * axes))
    assert torch.equal(plain, operator(axes)(*x, 3, None, None, None, None, None, None, None, None, False, None))
    assert torch.equal(plain, operator(axes)(*x, kernel_size=3, scale=3**-0.5))
    more = dict(rpb=torch.randn(2, *[5] * axes, dtype=dtype), scale=0.3,
                additional_keys=torch.randn(2, 3, 2, 3, dtype=dtype),
                additional_values=torch.randn(2, 3, 2, 4, dtype=dtype), return_lse=True, backend="reference")
    by_order, by_name = operator(axes)(*x, 3, 1, 1, False, False, *more.values()), operator(axes)(*x, 3, **more)
    assert all(torch.equal(a, b) for a, b in zip(by_order, by_name, strict=True))
    flat = operator(axes)(*x, 5, scale=0)
    near(flat, x[2].double().mean(list(range(1, axes + 1)), keepdim=True).expand(flat.shape), BOUNDS[dtype][0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ends", [(-1, 1), (-1, -0.5), (0.5, 1)])
def test_scores_beyond_the_range_of_exp(dtype, ends):
    q, v = torch.full((1, 30, 1, 2), 40.0, dtype=dtype), torch.randn(1, 30, 1, 3, dtype=dtype)
    k = q * torch.linspace(*ends, 30).view(1, 30, 1, 1).to(dtype)
    out, lse = halcyon.na1d(q, k, v, 30, scale=1.0, return_lse=True)
    scores = torch.einsum("bthd,bshd->bths", q.double(), k.double())
    near(lse, scores.logsumexp(-1), BOUNDS[dtype][1])
    near(out, torch.einsum("bths,bshe->bthe", scores.softmax(-1), v.double()), BOUNDS[dtype][0])
