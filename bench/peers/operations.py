# SPDX-License-Identifier: Apache-2.0
"""What is timed: fused attention, and its two unfused halves. Their inputs, their useful work and a reference.

Tensors here have the heads first: (heads, tokens, channels), scores (heads, tokens, window).
"""

import torch
from measuring import DTYPES, require

NAMES = ("attention", "qk", "av")
ALLOWED = {"fp32": 2e-5, "bf16": 2e-2}  # error over the largest value, forward; twice that for gradients
CHECKED = 48                            # queries


def useful_flops(problem, operation, backward):
    forward = (4 if operation == "attention" else 2) * problem.pairs * problem.channels * problem.heads
    return 2 * forward if backward else forward


def _tokens(problem):
    return torch.randn(problem.heads, problem.tokens, problem.channels)


def _scores(problem):
    return torch.randn(problem.heads, problem.tokens, problem.window)


def make_inputs(problem, operation, dtype):
    """The inputs and the gradient of the output, the same in every process."""
    torch.manual_seed(1)
    inputs = [_scores(problem).softmax(-1) if operation == "av" else _tokens(problem), _tokens(problem)]
    if operation == "attention":
        inputs.append(_tokens(problem))
    grad = _scores(problem) if operation == "qk" else _tokens(problem)
    return [t.to(DTYPES[dtype]) for t in inputs], grad.to(DTYPES[dtype])


def _reference(problem, operation, inputs, queries):
    """The output of these queries, written plainly, and which of its elements are defined."""
    everything = torch.ones((), dtype=torch.bool)
    if operation == "attention":
        query, key, value = inputs
        scores = query[:, queries] @ key.mT * problem.channels**-0.5
        return scores.masked_fill(~problem.rows(queries), -torch.inf).softmax(-1) @ value, everything
    keys, used = problem.slots(queries)
    if operation == "qk":
        query, key = inputs
        return torch.einsum("hsd,hswd->hsw", query[:, queries], key[:, keys]), used
    weights, value = inputs
    return torch.einsum("hsw,hswd->hsd", weights[:, queries] * used, value[:, keys]), everything


class Check:
    """The reference for some queries of the first and the last head, in double precision.

    A gradient of the output that is zero elsewhere makes every gradient of the inputs exact at this small cost.
    """

    def __init__(self, problem, operation, dtype, inputs, grad):
        chosen = torch.randperm(problem.tokens, generator=torch.Generator().manual_seed(2))[:CHECKED - 2]
        self._queries = torch.cat([torch.tensor([0, problem.tokens - 1]), chosen]).unique()
        self._heads = torch.tensor([0, problem.heads - 1])
        self._inputs = [t[self._heads].double().requires_grad_() for t in inputs]
        self._allowed = ALLOWED[dtype]
        self._expected, self._used = _reference(problem, operation, self._inputs, self._queries)
        self.grad = torch.zeros_like(grad)
        self.grad[:, self._queries] = grad[:, self._queries].masked_fill(~self._used, 0)

    def forward(self, out):
        actual = out[self._heads][:, self._queries].masked_fill(~self._used, 0)
        require("the output", actual, self._expected.masked_fill(~self._used, 0), self._allowed)

    def backward(self, grads):
        gradient = self.grad[self._heads][:, self._queries].double()
        expected = torch.autograd.grad(self._expected, self._inputs, gradient, retain_graph=True)
        for i, (one, wanted) in enumerate(zip(grads, expected)):
            require(f"gradient {i}", one[self._heads], wanted, 2 * self._allowed)
