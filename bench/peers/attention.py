# SPDX-License-Identifier: Apache-2.0
"""The worker's subject for neighborhood.py: a case in one peer, its result compared with a reference in double precision."""

import torch
from kinds import PEERS
from measuring import DTYPES, seconds_of
from operations import Check, make_inputs
from problems import CASES

CASE = {problem.name: problem for problem in CASES}


class Prepared:
    verdict, note = "agrees with the reference", ""

    def __init__(self, peer, problem, operation, dtype, backward):
        given, grad = make_inputs(problem, operation, dtype)
        check = Check(peer.answers(problem), operation, dtype, given, grad)
        call = peer.bind(problem, operation, DTYPES[dtype])
        inputs = [call.pack(t).requires_grad_(backward) for t in given]
        del given
        if backward:
            out, gradient = call.run(*inputs), call.pack(grad)
            run = lambda gradient: torch.autograd.grad(out, inputs, gradient, retain_graph=True)
            sparse = call.pack(check.grad)
            self.seconds = seconds_of(lambda: setattr(self, "result", run(sparse)))
            check.backward([call.unpack(t) for t in self.result])
            self.run = lambda: run(gradient)
        else:
            self.run = torch.no_grad()(lambda: call.run(*inputs))
            self.seconds = seconds_of(lambda: setattr(self, "result", self.run()))
            check.forward(call.unpack(self.result))
        del self.result
        if self.seconds < 3:  # was it only the first touch?
            self.seconds = seconds_of(self.run)


def prepare(peer, case, operation, dtype, backward):
    peer, problem = PEERS[peer], CASE[case]
    return (peer.refuses(problem, operation, DTYPES[dtype], backward) or
            Prepared(peer, problem, operation, dtype, backward))
