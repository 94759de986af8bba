# SPDX-License-Identifier: Apache-2.0
"""Small random problems of neighborhood attention with every option and memory layout, the same for the same seed."""

import math
import random

import neighborhood_reference as reference
import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
WIDTHS = (1, 2, 3, 4, 5, 8, 12, 16, 31, 33)
LAYOUTS = ("plain", "plain", "permuted", "sliced", "expanded")


def laid_out(shape, layout, dice, dtype):
    """What is stored and the function that makes the operand of this shape, a view, from it."""
    if layout == "permuted":
        order = list(range(len(shape)))
        dice.shuffle(order)
        back = [order.index(axis) for axis in range(len(shape))]
        stored, view = [shape[axis] for axis in order], lambda t: t.permute(back)
    elif layout == "sliced":
        stored = [*shape[:-2], shape[-2] + 3, 2 * shape[-1] + 1]
        view = lambda t: t[..., 1:-2, 1::2]
    elif layout == "expanded":
        axis = dice.randrange(len(shape))
        stored, view = [1 if a == axis else n for a, n in enumerate(shape)], lambda t: t.expand(shape)
    else:
        stored, view = shape, lambda t: t
    generator = torch.Generator().manual_seed(dice.randrange(2**31))
    values = torch.randn(stored, generator=generator, dtype=torch.float64)
    return values.to(dtype), view


class Problem:
    """operands: name -> (stored, view). Both sides start from the same values, those of the dtype."""

    def __init__(self, shapes, options, dtype, dice, layouts=LAYOUTS):
        self.shapes, self.options, self.dtype = shapes, options, dtype
        self.operands = {name: laid_out(shape, dice.choice(layouts), dice, dtype) for name, shape in shapes.items()}
        query, value = shapes["query"], shapes["value"]
        self.out_gradient = laid_out([*query[:-1], value[-1]], dice.choice(layouts), dice, dtype)
        self.lse_gradient = laid_out(query[:-1], dice.choice(layouts), dice, torch.promote_types(dtype, torch.float32))
        self.through = dice.choice(("out", "lse", "both"))

    def leaves(self, dtype=None):
        """The operands by name, in dtype or in the problem's own, in their layouts; each requires a gradient."""
        return {name: view(stored.to(dtype or stored.dtype, copy=True)).requires_grad_()
                for name, (stored, view) in self.operands.items()}

    def run(self, function, dtype=None, **more):
        """Results and gradients by name of function(**operands, **options)."""
        leaves = self.leaves(dtype)
        out, lse = function(**leaves, **self.options, **more)
        pairs = {"out": (out, self.out_gradient), "lse": (lse, self.lse_gradient)}
        used = [pairs[name] for name in pairs if self.through in (name, "both")]
        gradients = torch.autograd.grad([result for result, _ in used], list(leaves.values()),
                                        [view(stored.to(result.dtype)) for result, (stored, view) in used],
                                        allow_unused=True, materialize_grads=True)
        return {"out": out, "lse": lse} | {f"d_{name}": g for name, g in zip(leaves, gradients)}

    def magnitude(self, name):
        """Size of the terms a result is summed from: what is left after they cancel is rounding, not a result."""
        scale, width = self.options.get("scale"), self.shapes["value"][-1]
        scale = self.shapes["query"][-1] ** -0.5 if scale is None else abs(scale)
        if name == "lse":
            return 1.0
        if name in ("d_query", "d_key", "d_additional_keys"):
            return scale * math.sqrt(width)
        return math.sqrt(width * math.prod(self.shapes["query"][:-2])) if name == "d_rpb" else 0.0

    def __str__(self):
        return f"{self.shapes} {self.options} {self.dtype} through {self.through}"


def draw_axis(dice, length, causality=True):
    """(length, kernel, dilation, stride, causal, periodic)"""
    dilation = dice.choice([d for d in (1, 1, 1, 2, 3, 4) if d <= length])
    most = length // dilation
    kernel = dice.choice([1, min(2, most), min(3, most), most, dice.randint(1, most), dice.randint(1, most)])
    periodic = length % dilation == 0 and dice.random() < 0.25
    causal = causality and not periodic and dice.random() < 0.35
    stride = 1 if periodic or dice.random() < 0.5 else dice.randint(1, kernel)
    return length, kernel, dilation, stride, causal, periodic


def draw_axes(dice, axes):
    with_causality = dice.random() < 0.6
    while True:
        lengths = [dice.randint(1, (20, 14, 8)[axes - 1]) for _ in range(axes)]
        if dice.random() < 0.4:
            lengths[-1] = dice.randint(21, 70)
        drawn = [draw_axis(dice, length, with_causality) for length in lengths]
        if math.prod(lengths) <= 420 and math.prod(lengths) * math.prod(kernel for _, kernel, *_ in drawn) <= 16000:
            return list(zip(*drawn))


def draw(seed):
    """A problem of 1 + seed % 3 axes in the dtype number seed // 3 % 4."""
    dice = random.Random(seed)
    axes = 1 + seed % 3
    lengths, kernel, dilation, stride, causal, periodic = draw_axes(dice, axes)
    batch, groups = dice.choice((1, 1, 1, 2, 2, 2, 0)), dice.choice((1, 1, 2, 3))
    heads, d, e = groups * dice.choice((1, 1, 2, 3)), dice.choice(WIDTHS), dice.choice(WIDTHS)
    shapes = dict(query=[batch, *lengths, heads, d], key=[batch, *lengths, groups, d],
                  value=[batch, *lengths, groups, e])
    if not any(causal) and dice.random() < 0.6:
        shapes["rpb"] = [heads, *(2 * k - 1 for k in kernel)]
    if dice.random() < 0.35:
        n = dice.choice((1, 2, 7, 18))
        shapes |= dict(additional_keys=[batch, n, groups, d], additional_values=[batch, n, groups, e])
    options = dict(kernel_size=kernel, dilation=dilation, stride=stride, is_causal=causal, periodic=periodic,
                   scale=dice.choice((None, None, 0, 0.3, -0.7, 1)))
    return Problem(shapes, options, DTYPES[seed // 3 % 4], dice)


def expected(problem):
    """Of the reference, in double."""
    return problem.run(reference.neighborhood_attention, torch.float64)


def compare(problem, found, wanted, forward, lse, backward):
    """Asserts every result within bound * (largest value, or the size of its terms); names the worst element."""
    for name, want in wanted.items():
        got, want = found[name].detach().double(), want.detach()
        assert got.shape == want.shape, f"{name} of {problem}"
        if want.numel():
            error = (got - want).abs()
            bound = {"out": forward, "lse": lse}.get(name, backward)
            limit = bound * max(want.abs().max().item(), problem.magnitude(name))
            at = [int(i) for i in torch.unravel_index(error.argmax(), error.shape)]
            assert error.max() <= limit, (f"{name}{at}: got {got[tuple(at)]:.9g}, expected {want[tuple(at)]:.9g}, "
                                          f"allowed {limit:.3g}; {problem}")
