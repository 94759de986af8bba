# SPDX-License-Identifier: Apache-2.0
"""One peer in its own interpreter: answers requests, a line of JSON each, until its input ends (see remote.py).

Usage: worker.py SUBJECT PEER THREADS. The subject is a module here. Its prepare(peer, ...) gives the reason why this peer does
not run a case, or what runs it: run, about how many seconds that takes, and in words how its result was found to be (verdict)
and what of it is to be told with the times (note).
"""

import importlib
import json
import os
import sys

import torch
from measuring import peaks, seconds_of


class Server:
    def __init__(self, subject, peer):
        self.subject, self.peer, self.prepared = subject, peer, None

    def prepare(self, **case):
        self.prepared = None  # before the next one needs the memory
        found = self.subject.prepare(self.peer, **case)
        if isinstance(found, str):
            return {"refused": found}
        self.prepared = found
        return {"seconds": found.seconds, "verdict": found.verdict, "note": found.note}

    def time(self, runs, warm):
        if warm:  # what another peer has pushed out of the caches
            self.prepared.run()
        return {"samples": [seconds_of(self.prepared.run) for _ in range(runs)]}

    def drop(self):
        self.prepared = None
        return {}

    def peaks(self):
        return peaks()


def main():
    subject, peer, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    torch.set_num_threads(threads)
    server = Server(importlib.import_module(subject), peer)
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
