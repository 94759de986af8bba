# SPDX-License-Identifier: Apache-2.0
"""Every operation over ranks against finite differences of the sum over all ranks, along directions in all ranks' inputs
at once; what is linear as the adjoint of its backward; second derivatives, where there are any, in the same way."""

import pytest
import torch

import halcyon
from ranks import on_ranks, part, rank, returned, world
from whole import cut

parallel = halcyon.parallel
STEP = 1e-5


def total(value):
    """Over all ranks."""
    value = value.detach().clone()
    if world() > 1:
        torch.distributed.all_reduce(value)
    return value


def noise(shape, seed, own=True):
    """Of this rank, or the same on all."""
    generator = torch.Generator().manual_seed(100 * seed + (rank() if own else 99))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bent(y, seed):
    """A number of this rank's output, not linear in it."""
    return (noise(y.shape, seed) * (y + y.pow(2) / 3)).sum()


class Problem:
    """f of inputs: parts of the ranks, then parameters that all have alike."""

    def __init__(self, f, inputs, parameters=()):
        self.f = f
        self.inputs = [one.detach().clone().requires_grad_() for one in (*inputs, *parameters)]
        self.directions = [noise(one.shape, 7 + i, own=i < len(inputs)) for i, one in enumerate(self.inputs)]

    def along(self, step):
        return [one.detach() + step * v for one, v in zip(self.inputs, self.directions)]

    def slope(self, gradients):
        """By the gradients: those of parameters are contributions of the ranks, as are the parts'."""
        return total(sum((g * v).sum() for g, v in zip(gradients, self.directions)))

    def loss(self, inputs):
        return bent(self.f(*inputs), 1)

    def first(self, inputs, create_graph=False):
        return torch.autograd.grad(self.loss(inputs), inputs, create_graph=create_graph)

    def check(self, second):
        gradients = self.first(self.inputs)
        with torch.no_grad():
            ahead, behind = (total(self.loss(self.along(s))) for s in (STEP, -STEP))
        close(self.slope(gradients), (ahead - behind) / (2 * STEP), "gradient")
        if not second:
            return
        weights = [noise(one.shape, 20 + i, own=True) for i, one in enumerate(self.inputs)]

        def of_gradients(inputs, create_graph):
            return sum((g * w).sum() for g, w in zip(self.first(inputs, create_graph), weights))

        slopes = torch.autograd.grad(of_gradients(self.inputs, True), self.inputs)
        ahead, behind = (total(of_gradients([one.requires_grad_() for one in self.along(step)], False))
                         for step in (STEP, -STEP))
        close(self.slope(slopes), (ahead - behind) / (2 * STEP), "second derivative")

    def check_adjoint(self):
        """<f(x), w> = <x, f'(w)>, summed over the ranks."""
        x = self.inputs[0]
        y = self.f(*self.inputs)
        w = noise(y.shape, 3)
        back, = torch.autograd.grad(y, x, w)
        close(total((y * w).sum()), total((x * back).sum()), "adjoint", 1e-12)


def close(actual, expected, what, bound=1e-7):
    assert abs(actual - expected) <= bound * max(1, abs(expected)), (what, actual.item(), expected.item())


def rows_of(shape, dim, which):
    """This rank's part of a cut of the axis."""
    shape = list(shape)
    shape[dim] = cut(shape[dim], world(), which)[rank()]
    return noise(shape, 1)


GRID, SPHERE = (2, 3, 13, 6), 12 * 16
HEADS = (1, 12, 6, 2, 4)
LINEAR, SECOND = "linear", "second"


def halo(edge, width, **more):
    return lambda which: Problem(lambda x: parallel.halo_exchange(x, width, -2, None, edge, **more),
                                 [rows_of(GRID, -2, which)])


def of_rows(function, parameters=(), shape=GRID, dim=-2):
    return lambda which: Problem(function, [rows_of(shape, dim, which)], [noise(one, 30 + i, own=False) / 3
                                                                          for i, one in enumerate(parameters)])


def attention(function, shape, dim):
    return lambda which: Problem(function, [rows_of(shape, dim, which) * scale for scale in (1, 0.7, 1.3)])


def entries(which):
    x = rows_of((24, 3), 0, which)
    index = torch.randint(-1, 24, (2, 9), generator=torch.Generator().manual_seed(rank()))
    return Problem(lambda x: parallel.gather_index(x, index), [x])


def faces(which):
    return Problem(lambda x: parallel.healpix_pad(x, 2), [rows_of((12, 2, 4, 4), 0, which)])


def batch_norm(x, weight, bias):
    return parallel.batch_norm(x, torch.zeros(3).double(), torch.ones(3).double(), weight, bias, True)


OPERATIONS = {
    **{f"halo_exchange {edge}": (halo(edge, (3, 2)), LINEAR, SECOND)
       for edge in ("zero", "periodic", "reflect", "none")},
    "halo_exchange fold": (halo("fold", 2, fold_dim=-1, fold_sign=-1.0), LINEAR, SECOND),
    "gather_rows": (of_rows(lambda x: parallel.gather_rows(x, -3 + rank(), 15, -2, None, "periodic")), LINEAR, SECOND),
    "gather_index": (entries, LINEAR, SECOND),
    "gather": (of_rows(lambda x: parallel.gather(x, sum_grad=True)), LINEAR, SECOND),
    "shard_x": (of_rows(parallel.shard_x, shape=(2, 5, 7, 3), dim=1), LINEAR, SECOND),
    "shard_t": (of_rows(parallel.shard_t, shape=(2, 5, 7, 3), dim=2), LINEAR, SECOND),
    "healpix_pad": (faces, LINEAR, SECOND),
    "conv": (of_rows(lambda x, w, b: parallel.conv(x, w, b, padding=1, padding_mode="circular", edge="reflect"),
                     [(4, 3, 3, 3), (4,)]), SECOND),
    "conv without bias": (of_rows(lambda x, w: parallel.conv(x, w, stride=2, padding=2, dilation=2), [(4, 3, 3, 2)]),
                          LINEAR, SECOND),
    "conv_transpose": (of_rows(lambda x, w: parallel.conv_transpose(x, w, stride=2, padding=1), [(3, 2, 3, 3)]), LINEAR,
                       SECOND),
    "pool avg": (of_rows(lambda x: parallel.pool(x, 3, 2, 1, mode="avg")), LINEAR, SECOND),
    "pool max": (of_rows(lambda x: parallel.pool(x, 3, 1, 1)), SECOND),
    **{f"interpolate {mode}": (of_rows(lambda x, mode=mode: parallel.interpolate(x, scale_factor=2, mode=mode)), LINEAR,
                               SECOND) for mode in ("nearest", "bilinear", "bicubic")},
    "group_norm": (of_rows(lambda x, w, b: parallel.group_norm(x, 3, w, b), [(3,), (3,)]), SECOND),
    "layer_norm": (of_rows(lambda x, w, b: parallel.layer_norm(x, (13, 6), w, b), [(13, 6), (13, 6)]), SECOND),
    "batch_norm": (of_rows(batch_norm, [(3,), (3,)]), SECOND),
    "na1d": (attention(lambda q, k, v: parallel.na1d(q, k, v, 5), (1, 13, 2, 4), 1),),
    "na2d": (attention(lambda q, k, v: parallel.na2d(q, k, v, (5, 3), dilation=(2, 1)), HEADS, 1),),
    "na3d": (attention(lambda q, k, v: parallel.na3d(q, k, v, 3, is_causal=(True, False, False)), (1, 12, 4, 3, 2, 4),
                       1),),
    "neighborhood_attention_healpix": (attention(lambda q, k, v: parallel.neighborhood_attention_healpix(
        q, k, v, 2, rings=1), (1, SPHERE, 2, 4), 1),),
    "scaled_dot_product_attention": (attention(lambda q, k, v: parallel.scaled_dot_product_attention(
        q, k, v, is_causal=True), (1, 2, 11, 4), 2), SECOND),
}


def check(name, which):
    make, *kinds = OPERATIONS[name]
    problem = make(which)
    if LINEAR in kinds:
        problem.check_adjoint()
    problem.check(SECOND in kinds)


@pytest.mark.parametrize("ranks, which", [(1, 0), (2, 1), (3, 0), (4, 0)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_finite_differences(name, ranks, which):
    returned(on_ranks(ranks, check, name, which))


def check_shard():
    """x is whole on every rank, which all change alike: each gets the gradient of the sum."""
    x, v = noise((2, 13, 3), 1, own=False).requires_grad_(), noise((2, 13, 3), 2, own=False)
    y = parallel.shard(x)
    gradient, = torch.autograd.grad(bent(y, 1), x, create_graph=True)
    with torch.no_grad():
        ahead, behind = (total(bent(parallel.shard(x + s * v), 1)) for s in (STEP, -STEP))
    close((gradient * v).sum().detach(), (ahead - behind) / (2 * STEP), "gradient")
    w = noise(y.shape, 3)
    back, = torch.autograd.grad(parallel.shard(x), x, w)
    close(total((part(x, dim=-2) * w).sum()), (x * back).sum().detach(), "adjoint", 1e-12)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_shard(ranks):
    returned(on_ranks(ranks, check_shard))
