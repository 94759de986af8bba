# SPDX-License-Identifier: Apache-2.0
"""The worker's subject for healda.py: a layer in one library, with the parameters of another and compared with its results."""

import contextlib
import functools
import math
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
    """[(error over what is allowed, of what)], the largest first."""
    shares = []
    for (kind, wanted), allowed in zip(expected.items(), ALLOWED[dtype]):
        if found[kind].keys() != wanted.keys():
            raise ValueError(f"[compare] expected {kind} {', '.join(wanted)}, got {', '.join(found[kind])}")
        for name, tensor in wanted.items():
            what = f"the gradient of {name}" if kind == "gradients" else name
            share = share_of(what, found[kind][name], tensor, allowed if tensor.is_floating_point() else math.ulp(1))
            shares.append((share if share == share else math.inf, what))  # not a number: nothing is further off
    return sorted(shares, reverse=True)


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
        first_pass = Pass(verified, dtype, backward)
        self.seconds = seconds_of(lambda: setattr(self, "found", first_pass.found()))
        worst, what = compare(self.found, expected, dtype)[0]
        del self.found
        self.verdict = f"has {worst:.2g} of the allowed error" + (" to its own reference" if first else "")
        self.note = f"{what} has {worst:.3g} times the allowed error" if not worst <= 1 else ""
        if self.note and (peer.name == "halcyon" or dtype == "fp32"):  # how others round in bf16 is told only
            raise ValueError(f"[compare] expected the peer's values, got others: {self.note}")
        self.run = Pass(layer, dtype, backward).run
        if self.seconds < 3 or peer.compiles:  # was it only the first touch?
            self.seconds = seconds_of(self.run)


def prepare(peer, case, dtype, backward, reference):
    """reference: a file, written by the first peer that runs the case."""
    peer, case = PEERS[peer], CASE[case]
    return peer.refuses(case, backward) or Prepared(peer, case, dtype, backward, pathlib.Path(reference))
