# SPDX-License-Identifier: Apache-2.0
"""Operators on a sharded axis against the same function of one process on the whole tensor: forward, gradients, second
derivatives.

    compare(F.conv2d, x, [3, 0, 5], Case("conv", dict(), -2, [weight, bias]))"""

from dataclasses import dataclass, field

import torch

import halcyon
from ranks import on_ranks, part, rank, returned

# cuts of an axis over 1, 2, 3 and 4 ranks, as fractions of it in twelfths: even, uneven, with ranks that have nothing
CUTS = {1: [[12]], 2: [[6, 6], [11, 1], [0, 12]], 3: [[4, 4, 4], [1, 0, 11]], 4: [[3, 3, 3, 3], [0, 7, 0, 5]]}


def cut(rows, ranks, which=0):
    """Lengths of the ranks' parts of an axis."""
    ends = [sum(CUTS[ranks][which][:r]) * rows // 12 for r in range(ranks + 1)]
    return [b - a for a, b in zip(ends, ends[1:])]


ALL_CUTS = [(ranks, which) for ranks, cuts in CUTS.items() for which in range(len(cuts))]


@dataclass
class Case:
    """A function of halcyon.parallel, its arguments, and those of the plain function."""
    name: str
    arguments: dict
    dim: int = -2
    parameters: list = field(default_factory=list)  # weight, bias: tensors that need gradients
    second: bool = True


def output_sizes(rows, out_rows, sizes):
    return sizes if out_rows == rows else [len(one) for one in torch.tensor_split(torch.empty(out_rows), len(sizes))]


def on_rank(x, sizes, case, weight):
    mine = part(x, sizes, case.dim).clone().requires_grad_()
    parameters = [one.clone().requires_grad_() for one in case.parameters]
    y = getattr(halcyon.parallel, case.name)(mine, *parameters, dim=case.dim, **case.arguments)
    out_sizes = output_sizes(x.shape[case.dim], weight.shape[case.dim], sizes)
    assert y.shape[case.dim] == out_sizes[rank()], (y.shape, out_sizes)
    inputs = [mine, *parameters]
    loss = (y.pow(3) * part(weight, out_sizes, case.dim)).sum()
    if not case.second:
        return y.detach(), [one.detach() for one in torch.autograd.grad(loss, inputs)], None
    plain = torch.autograd.grad(loss, inputs, retain_graph=True)
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    for one, other in zip(plain, first):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    # of the gradients as the whole's: those of the parameters are sums over the ranks, so each rank's counts linearly
    wanted = first[0].pow(2).sum() + sum((one * torch.linspace(-1, 1, one.numel(), dtype=one.dtype)
                                          .view(one.shape)).sum() for one in first[1:])
    second = torch.autograd.grad(wanted, inputs)
    return y.detach(), [one.detach() for one in plain], [one.detach() for one in second]


def compare(function, x, sizes, case, rtol=1e-10, atol=1e-10):
    """function(x, *parameters) on the whole is what the ranks compute of their parts."""
    whole = x.clone().requires_grad_()
    parameters = [one.clone().requires_grad_() for one in case.parameters]
    y = function(whole, *parameters)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    inputs = [whole, *parameters]
    loss = (y.pow(3) * weight).sum()
    first = torch.autograd.grad(loss, inputs, create_graph=case.second)
    results = returned(on_ranks(len(sizes), on_rank, x, sizes, case, weight))

    def check(mine, wanted, what):
        gathered = [torch.cat([one[0] for one in mine], case.dim)]
        gathered += [sum(one[i] for one in mine) for i in range(1, len(inputs))]
        for i, (one, other) in enumerate(zip(gathered, wanted)):
            torch.testing.assert_close(one, other.detach(), rtol=rtol, atol=atol,
                                       msg=lambda text, i=i: f"{what} of input {i}, {case}, cut {sizes}: {text}")

    torch.testing.assert_close(torch.cat([one[0] for one in results], case.dim), y.detach(), rtol=rtol, atol=atol,
                               msg=lambda text: f"forward, {case}, cut {sizes}: {text}")
    check([one[1] for one in results], first, "gradient")
    if case.second:
        wanted = first[0].pow(2).sum() + sum((one * torch.linspace(-1, 1, one.numel(), dtype=one.dtype)
                                              .view(one.shape)).sum() for one in first[1:])
        check([one[2] for one in results], torch.autograd.grad(wanted, inputs), "second derivative")


def call(name, tensors, options):
    """halcyon.parallel.name on this rank's own tensors and options."""
    return getattr(halcyon.parallel, name)(*tensors[rank()], **options[rank()])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
