# SPDX-License-Identifier: Apache-2.0
"""What the scripts of this folder share: ranks on this machine over gloo, contenders that take turns, medians."""

import datetime
import os
import pathlib
import statistics
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent


def keep_memory():
    """For processes started from here on: with glibc's heap as it is, what a call pays in page faults depends on the
    calls before it."""
    os.environ |= dict(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(1 << 40))


def _rank(index, size, store, path, function, args, results):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[:0] = path
    import torch
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=size,
                                         timeout=datetime.timedelta(minutes=2))
    result = function(*args)
    if index == 0:
        results.send(result)
    results.close()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run(size, function, *args, path=()):
    """function(*args) on every rank of a gloo group, one thread each; what rank 0 returns. path: where to import from."""
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = context.Pipe(duplex=False)
        ranks = [context.Process(target=_rank, args=(index, size, os.path.join(folder, "store"), list(path), function,
                                                     args, theirs)) for index in range(size)]
        for rank in ranks:
            rank.start()
        theirs.close()  # so that a rank that dies ends the wait
        try:
            result = ours.recv()
        except EOFError:
            result = None
        for rank in ranks:
            rank.join()
        if any(rank.exitcode for rank in ranks):
            sys.exit(f"a rank ended with {[rank.exitcode for rank in ranks]}")
        return result


def take_turns(contenders, rounds, seconds=0.1):
    """{name: function} -> {name: seconds a call of each round, the slowest rank's}, the order turned round by round."""
    import torch
    calls = {}
    for name, function in contenders.items():
        for _ in range(3):
            function()
        torch.distributed.barrier()
        begun = time.perf_counter()
        function()
        once = torch.tensor([time.perf_counter() - begun])
        torch.distributed.all_reduce(once, torch.distributed.ReduceOp.MAX)
        calls[name] = max(1, min(200, int(seconds / once.item())))
    times = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            torch.distributed.barrier()
            begun = time.perf_counter()
            for _ in range(calls[name]):
                contenders[name]()
            taken = torch.tensor([(time.perf_counter() - begun) / calls[name]])
            torch.distributed.all_reduce(taken, torch.distributed.ReduceOp.MAX)
            times[name].append(taken.item())
    return times


def spread(values):
    """The median and the median deviation from it."""
    middle = statistics.median(values)
    return middle, statistics.median([abs(one - middle) for one in values])
