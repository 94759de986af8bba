# SPDX-License-Identifier: Apache-2.0
"""The worker's subject for healda.py: a layer in one library, with the parameters of another and compared with its results."""

import contextlib
import functools
import pathlib

import torch
from layer_cases import CASES
from libraries import PEERS
from measuring import DTYPES, seconds_of, share_of

CASE = {case.name: case for case in CASES}
ALLOWED = {"fp32": (2e-5, 2e-4), "bf16": (2e-2, 4e-2)}  # results and gradients, over the largest value


@functools.cache
def library_of(peer):
    return PEERS[peer].library()


class Pass:
    """A forward, or a forward and a backward, in fp32 or by autocast over it as a user has it."""

    def __init__(self, layer, dtype, backward):
        self.layer, self._backward, self._grads = layer, backward, None
        self._half = dtype != "fp32"
        for leaf in layer.leaves.values():
            leaf.requires_grad_(backward)

    def _forward(self):
        with torch.autocast("cpu", DTYPES["bf16"]) if self._half else contextlib.nullcontext():
            return self.layer.run()

    def run(self):
        if not self._backward:
            with torch.no_grad():
                return self._forward()
        for leaf in self.layer.leaves.values():
            leaf.grad = None
        out = self._forward()
        outs = out if isinstance(out, tuple) else (out,)
        if self._grads is None:
            torch.manual_seed(3)
            self._grads = [torch.randn(o.shape).to(o.dtype) for o in outs]
        torch.autograd.backward(outs, self._grads)
        return out

    def found(self):
        """What it gives, by name."""
        results = {name: t.detach() for name, t in self.layer.results(self.run()).items()}
        grads = {name: leaf.grad for name, leaf in self.layer.leaves.items()} if self._backward else {}
        return {"results": results, "gradients": grads}


def write_reference(path, layer, backward):
    state = layer.module.state_dict() if layer.module else {}
    torch.save({"state": state, **Pass(layer, "fp32", backward).found()}, path)


def compare(found, expected, dtype):
    """The largest error over what is allowed."""
    worst = 0
    for (kind, wanted), allowed in zip(expected.items(), ALLOWED[dtype]):
        if found[kind].keys() != wanted.keys():
            raise ValueError(f"[compare] expected {kind} {', '.join(wanted)}, got {', '.join(found[kind])}")
        for name, tensor in wanted.items():
            what = f"the gradient of {name}" if kind == "gradients" else name
            exact = not tensor.is_floating_point()
            if exact and not torch.equal(found[kind][name].to(tensor.dtype), tensor):
                raise ValueError(f"[compare] expected {what} equal, got others")
            worst = max(worst, 0 if exact else share_of(what, found[kind][name], tensor, allowed))
    return worst


class Prepared:
    def __init__(self, peer, case, dtype, backward, reference):
        torch._dynamo.reset()  # it compiles one function for some modules only
        torch.manual_seed(1)
        layer = case.products(peer.linear) if peer.linear else case.build(library_of(peer.name))
        verified = layer.verified or layer
        first = not reference.exists()
        if first:
            write_reference(reference, verified, backward)
        expected = torch.load(reference, weights_only=True)
        state = expected.pop("state")
        if layer.module:
            layer.module.load_state_dict(state)
        worst = compare(Pass(verified, dtype, backward).found(), expected, dtype)
        self.verdict = f"has {worst:.2g} of the allowed error" + (" to its own reference" if first else "")
        self._pass = Pass(layer, dtype, backward)
        self.seconds = seconds_of(self.run)
        if self.seconds < 3:  # was it only the first touch?
            self.seconds = seconds_of(self.run)

    def run(self):
        self._pass.run()


def prepare(peer, case, dtype, backward, reference):
    """reference: a file, written by the first peer that runs the case."""
    peer, case = PEERS[peer], CASE[case]
    return peer.refuses(case, backward) or Prepared(peer, case, dtype, backward, pathlib.Path(reference))
