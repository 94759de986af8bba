# SPDX-License-Identifier: Apache-2.0
"""gradcheck of the fused and unfused operators, forward mode against the reference, double backward."""

import random

import neighborhood_reference as reference
import pytest
import torch
from conftest import near
from neighborhood_problems import Problem, draw
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.gradcheck import GradcheckError

import halcyon

CASES = {
    "plain": dict(lengths=(5,), kernel=3),
    "grouped, bias, additional": dict(lengths=(5,), kernel=3, heads=4, groups=2, bias=True, n=2),
    "ragged dilation": dict(lengths=(7,), kernel=2, dilation=3, bias=True),
    "causal stride": dict(lengths=(6,), kernel=4, stride=3, is_causal=True, n=1),
    "periodic": dict(lengths=(6,), kernel=2, dilation=2, periodic=True, bias=True),
    "no scale": dict(lengths=(4,), kernel=3, scale=0, bias=True),
    "2d mixed": dict(lengths=(3, 4), kernel=(2, 3), is_causal=(True, False), periodic=(False, True), scale=1.3),
    "2d bias": dict(lengths=(3, 4), kernel=(3, 2), dilation=(1, 2), stride=(2, 1), bias=True, n=1, heads=2),
    "3d": dict(lengths=(2, 3, 2), kernel=(1, 2, 2), is_causal=(False, True, False)),
    "3d bias": dict(lengths=(2, 1, 4), kernel=(2, 1, 3), periodic=(False, False, True), bias=True),
}


def problem_of(lengths, kernel, heads=1, groups=1, bias=False, n=0, batch=1, **options):
    shape, kernels = [batch, *lengths], reference.per_axis(kernel, len(lengths))
    shapes = dict(query=[*shape, heads, 3], key=[*shape, groups, 3], value=[*shape, groups, 2])
    if bias:
        shapes["rpb"] = [heads, *(2 * k - 1 for k in kernels)]
    if n:
        shapes |= dict(additional_keys=[batch, n, groups, 3], additional_values=[batch, n, groups, 2])
    return Problem(shapes, dict(kernel_size=kernel) | options, torch.float64, random.Random(5), ["plain"])


def fused(axes):
    return lambda **arguments: getattr(halcyon, f"na{axes}d")(**arguments, return_lse=True)


def function_of(problem, operator):
    """operator as a function of its operands, and the operands."""
    leaves = problem.leaves()
    return lambda *tensors: operator(**dict(zip(leaves, tensors)), **problem.options), list(leaves.values())


@pytest.mark.parametrize("case", CASES)
def test_gradcheck_of_fused(case):
    problem = problem_of(**CASES[case])
    function, leaves = function_of(problem, fused(len(CASES[case]["lengths"])))
    assert gradcheck(function, leaves, check_forward_ad=True)


def unfused(axes, options):
    def both(query, key, value, rpb=None, additional_keys=None, additional_values=None):
        def heads_first(t):
            return None if t is None else t.movedim(-2, 1)
        a = getattr(halcyon, f"na{axes}d_qk")(heads_first(query), heads_first(key), **options, rpb=rpb,
                                              additional_keys=heads_first(additional_keys))
        out = getattr(halcyon, f"na{axes}d_av")(a.softmax(-1), heads_first(value), **options,
                                                additional_values=heads_first(additional_values))
        return out.movedim(1, -2), a.logsumexp(-1).movedim(1, -1)
    return both


UNFUSED = [case for case, setting in CASES.items() if not {"stride", "periodic", "scale", "groups"} & set(setting)]


@pytest.mark.parametrize("case", UNFUSED + ["2d causal"])
def test_gradcheck_of_unfused(case):
    causal = dict(lengths=(3, 4), kernel=(3, 2), dilation=(1, 2), is_causal=(True, False), n=2, heads=2)
    setting = CASES.get(case, causal)
    setting = setting | dict(groups=setting.get("heads", 1))
    problem = problem_of(**setting)
    options, problem.options = problem.options, {}
    function, leaves = function_of(problem, unfused(len(setting["lengths"]), options))
    assert gradcheck(function, leaves, check_forward_ad=True)


@pytest.mark.parametrize("seed", [seed for seed in range(120) if seed // 3 % 4 < 2])
def test_forward_mode_of_random_problems(seed):
    """Against forward mode through the reference, with a tangent on every operand or on one alone."""
    problem = draw(seed)
    bound = 1e-11 if problem.dtype == torch.float64 else 2e-5
    tangents = {name: torch.randn_like(stored) for name, (stored, _) in problem.operands.items()}
    chosen = random.Random(seed).choice([list(tangents)] + [[name] for name in tangents])

    def derivative(operator, dtype):
        with forward_ad.dual_level():
            operands = {name: view(forward_ad.make_dual(stored.to(dtype), tangents[name].to(dtype))
                                   if name in chosen else stored.to(dtype))
                        for name, (stored, view) in problem.operands.items()}
            return [forward_ad.unpack_dual(result) for result in operator(**operands, **problem.options)]
    for got, want in zip(derivative(fused(1 + seed % 3), problem.dtype),
                         derivative(reference.neighborhood_attention, torch.float64)):
        assert got.primal.shape == want.primal.shape and got.primal.isfinite().all()
        expected = torch.zeros_like(want.primal) if want.tangent is None else want.tangent
        found = torch.zeros_like(expected) if got.tangent is None else got.tangent
        if expected.numel():
            error, size = (found.double() - expected).abs().max().item(), expected.abs().max().item()
            assert error <= bound * max(size, 1), f"error {error:.3g} of {size:.3g} for {chosen} of {problem}"


@pytest.mark.parametrize("case", ["plain", "grouped, bias, additional", "2d mixed"])
def test_double_backward_is_right_or_raises(case):
    function, leaves = function_of(problem_of(**CASES[case]), fused(len(CASES[case]["lengths"])))
    try:
        assert gradgradcheck(function, leaves)
    except GradcheckError:
        raise
    except RuntimeError as error:
        assert str(error)


def test_double_backward_of_unfused_is_right_or_raises():
    q, k = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    for function, operands in ((lambda q, k: halcyon.na1d_qk(q, k, 3), (q, k)),
                               (lambda a, v: halcyon.na1d_av(a, v, 3), (a, k))):
        try:
            assert gradgradcheck(function, operands)
        except GradcheckError:
            raise
        except RuntimeError as error:
            assert str(error)


def test_reverse_and_forward_mode_are_adjoint():
    """<J t, g> = <t, J' g> on a problem too large for finite differences."""
    problem = problem_of((9, 16), (3, 5), heads=4, groups=2, bias=True, n=3, batch=2, periodic=(False, True))
    function, leaves = function_of(problem, fused(2))
    results = function(*leaves)
    gradients = [torch.randn_like(result) for result in results]
    adjoint = torch.autograd.grad(results, leaves, gradients)
    tangents = [torch.randn_like(t) for t in leaves]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t.detach(), d) for t, d in zip(leaves, tangents)]
        along = sum((forward_ad.unpack_dual(result).tangent * g).sum()
                    for result, g in zip(function(*duals), gradients))
    near(along, sum((t * g).sum() for t, g in zip(tangents, adjoint)), 1e-10)
