# SPDX-License-Identifier: Apache-2.0
"""One peer in its own interpreter: answers requests, a line of JSON each, until its input ends (see neighborhood.py)."""

import json
import os
import sys
import time

import torch
from kinds import PEERS
from operations import DTYPES, Check, make_inputs
from problems import CASES

CASE = {problem.name: problem for problem in CASES}


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Prepared:
    """A case ready to run, its result compared with the reference; seconds: about those of a run."""

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


def peaks():
    """GFLOP/s of square products, the best of some."""
    found = {}
    for name, dtype in DTYPES.items():
        a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
        found[name] = 2 * 2048**3 / min(seconds_of(lambda: a @ b) for _ in range(8)) * 1e-9
    return found


class Server:
    def __init__(self, peer):
        self.peer, self.prepared = peer, None

    def prepare(self, case, operation, dtype, backward):
        problem, self.prepared = CASE[case], None
        reason = self.peer.refuses(problem, operation, DTYPES[dtype], backward)
        if reason:
            return {"refused": reason}
        self.prepared = Prepared(self.peer, problem, operation, dtype, backward)
        return {"seconds": self.prepared.seconds}

    def time(self, runs, warm):
        if warm:  # what another peer has pushed out of the caches
            self.prepared.run()
        return {"samples": [seconds_of(self.prepared.run) for _ in range(runs)]}

    def drop(self):
        self.prepared = None
        return {}

    def peaks(self):
        return {"peaks": peaks(), "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


def main():
    peer, threads = PEERS[sys.argv[1]], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    torch.set_num_threads(threads)
    server = Server(peer)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # the other cases go on
            server.prepared = None
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
