# SPDX-License-Identifier: Apache-2.0
"""Functions run by several processes that form a torch.distributed group (gloo).

    def halo(x):                       # at the top of a test module; runs on every rank
        return halcyon.halo_exchange(rank_part(x), 1)

    results = on_ranks(3, halo, x)     # one result a rank; an exception comes back as Raised

The processes of a size are made once, from a server that has imported torch and halcyon, and wait between calls."""

import atexit
import datetime
import importlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from dataclasses import dataclass

import torch


@dataclass
class Raised:
    """What a rank raised: the exception's class, its text, where."""
    kind: type
    text: str
    trace: str


def rank():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world():
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def part(x, sizes=None, dim=-2):
    """This rank's rows of a whole tensor."""
    sizes = sizes if sizes is not None else [len(one) for one in torch.tensor_split(torch.empty(x.shape[dim]), world())]
    return x.split(list(sizes), dim)[rank()]


def _call(module, name, args):
    return getattr(importlib.import_module(module), name)(*args)


def _serve(index, size, store, pipe, timeout, path):
    sys.path[:0] = [one for one in path if one not in sys.path]
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=size,
                                             timeout=datetime.timedelta(seconds=timeout))
    while True:
        call = pipe.recv()
        if call is None:
            break
        try:
            result = _call(*call)
        except Exception as error:  # noqa: BLE001  whatever a rank raises is a result
            result = Raised(type(error), str(error), traceback.format_exc())
        pipe.send(result)
    if size > 1:
        torch.distributed.destroy_process_group()


class Ranks:
    """The processes of one group."""

    def __init__(self, size, timeout=60):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "numpy", "halcyon"])
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # by which the server finds what it loads before
        self.folder = tempfile.TemporaryDirectory()
        store = os.path.join(self.folder.name, "store")
        self.pipes, self.processes = [], []
        for index in range(size):
            ours, theirs = context.Pipe()
            target, args = self.serving(index, (index, size, store, theirs, timeout, list(sys.path)))
            process = context.Process(target=target, args=args, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def serving(self, index, args):
        """What a rank's process runs, with its arguments."""
        return _serve, args

    def ask(self, function, *args):
        for pipe in self.pipes:
            pipe.send((function.__module__, function.__name__, args))

    def __call__(self, function, *args):
        self.ask(function, *args)
        return [pipe.recv() for pipe in self.pipes]

    def close(self):
        for pipe in self.pipes:
            try:
                pipe.send(None)
            except OSError:
                pass
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()
        self.folder.cleanup()


_pools = {}


def on_ranks(size, function, *args):
    """function(*args) on every rank of a group of this size; their results in rank order."""
    if size not in _pools:
        _pools[size] = Ranks(size)
        if len(_pools) == 1:
            atexit.register(lambda: [pool.close() for pool in _pools.values()])
    return _pools[size](function, *args)


def returned(results):
    """The results, where no rank raised."""
    for result in results:
        if isinstance(result, Raised):
            raise AssertionError(f"a rank raised:\n{result.trace}")
    return results
