#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The round trip between frames and pixels over gloo ranks on this machine: ours, the raw collective, others' schemes.

    .venv/bin/python bench/parallel/reshard.py --ranks 2 4
    /tmp/peers/physicsnemo/bin/python bench/parallel/reshard.py     # adds physicsnemo's own functions

Rounds are interleaved, every contestant once a round in turning order; times are medians (and median absolute
deviations) over rounds of the slowest rank; its CPU time, threads of gloo included, tells more where the machine is busy.
Every result is verified. GB/s counts the bytes that leave a rank."""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn

ROOT = Path(__file__).resolve().parents[2]


def raw_pair(halcyon):
    """Two all_to_all_single of the same bytes, contiguous as they come: what any reshard pays at least. Its own results
    are not a reshard."""
    def run(x):
        exchange = dist_nn.all_to_all_single if x.requires_grad else plain_all_to_all
        y = exchange(torch.empty_like(x), x)
        return y, exchange(torch.empty_like(y), y)
    return run


def plain_all_to_all(out, x):
    dist.all_to_all_single(out.view(-1), x.view(-1))
    return out


def rearranged(halcyon):
    """Re-implementation in this benchmark of the scheme that the specification describes (spec/parallel.md 2.4): split
    space into equal parts, one equal-size all_to_all_single, join along time; and the inverse. Each side is a rearrangement
    of axes that copies only where it must."""
    def exchange(parts):
        call = dist_nn.all_to_all_single if parts.requires_grad else dist_all_to_all
        return call(torch.empty_like(parts), parts)

    def dist_all_to_all(out, parts):
        dist.all_to_all_single(out, parts)
        return out

    def run(x):
        n = dist.get_world_size()
        b, t, pixels, c = x.shape
        parts = x.reshape(b, t, n, pixels // n, c).permute(2, 0, 1, 3, 4).contiguous()
        sharded = exchange(parts).permute(1, 0, 2, 3, 4).reshape(b, n * t, pixels // n, c)
        parts = sharded.reshape(b, n, t, pixels // n, c).permute(1, 0, 2, 3, 4).contiguous()
        return sharded, exchange(parts).permute(1, 2, 0, 3, 4).reshape(b, t, pixels, c)
    return run


def halcyon_pair(halcyon):
    """halcyon.shard_x, then halcyon.shard_t."""
    def run(x):
        sharded = halcyon.shard_x(x)
        return sharded, halcyon.shard_t(sharded)
    return run


def physicsnemo_pair(halcyon):
    """physicsnemo.experimental.models.healda's shard_x and shard_t, as installed."""
    shard_x, shard_t = physicsnemo_functions()

    def run(x):
        sharded = shard_x(x, dist.group.WORLD)
        return sharded, shard_t(sharded, dist.group.WORLD)
    return run


def physicsnemo_functions():
    """shard_x and shard_t of the installed package, or None. What it imports and these never call is stood in for."""
    import importlib
    import importlib.util
    if importlib.util.find_spec("physicsnemo") is None:
        return None
    sys.path.insert(0, str(ROOT / "bench" / "peers"))
    from absent import stand_ins
    warnings.simplefilter("ignore")
    with stand_ins():
        module = importlib.import_module("physicsnemo.experimental.models.healda.sharding")
    return module.shard_x, module.shard_t


def work(rank, size, arguments, store, out):
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(os.environ.get("HALCYON_BUILD_DIR", ROOT / "build")) / "python"))
    import halcyon
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size,
                            timeout=datetime.timedelta(seconds=120))
    contestants = {"halcyon": halcyon_pair, "raw all_to_all_single pair": raw_pair,
                   "rearrange + all_to_all_single (re-implementation)": rearranged}
    if not arguments.no_peer and physicsnemo_functions() is not None:
        contestants["physicsnemo (installed)"] = physicsnemo_pair
    contestants = {name: make(halcyon) for name, make in contestants.items()}
    b, t, pixels, c = arguments.shape
    whole = torch.randn(b, t, pixels, c, generator=torch.Generator().manual_seed(1))
    mine, wanted = (whole.tensor_split(size, axis)[rank].contiguous() for axis in (1, 2))
    times = {}
    for backward in (False, True):
        x = mine.clone().requires_grad_(backward)
        cotangent = mine.clone()
        for name, run in contestants.items():  # warm up and verify
            sharded, back = run(x)
            if not name.startswith("raw"):
                assert torch.equal(sharded, wanted) and torch.equal(back, mine), name
            if backward:
                grad, = torch.autograd.grad(back, x, cotangent)
                assert torch.equal(grad, cotangent), name
            del sharded, back
        order = list(contestants)
        for round_index in range(arguments.rounds):
            for name in order[round_index % len(order):] + order[:round_index % len(order)]:
                dist.barrier()
                begun = time.perf_counter(), time.process_time()
                sharded, back = contestants[name](x)
                if backward:
                    grad, = torch.autograd.grad(back, x, cotangent)
                    del grad
                del sharded, back
                ended = time.perf_counter(), time.process_time()
                taken = torch.tensor([b - a for a, b in zip(begun, ended)], dtype=torch.float64)
                dist.all_reduce(taken, dist.ReduceOp.MAX)
                times.setdefault((backward, name), []).append(taken.tolist())
    if rank == 0:
        Path(out).write_text(json.dumps([[*key, values] for key, values in times.items()]))
    dist.destroy_process_group()


def medians(values):
    return [statistics.median(column) for column in zip(*values)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--shape", type=int, nargs=4, default=[1, 8, 3072, 512], metavar=("B", "T", "X", "C"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-peer", action="store_true", help="without physicsnemo")
    parser.add_argument("--json", help="write all times to this file")
    arguments = parser.parse_args()
    everything = []
    for size in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/times.json"
            torch.multiprocessing.spawn(work_of_process, (size, arguments, f"{folder}/store", out), nprocs=size)
            results = {(backward, name): values for backward, name, values in json.loads(Path(out).read_text())}
        sent = 4 * torch.Size(arguments.shape).numel() // size * (size - 1) // size  # by a rank, one way
        for backward in (False, True):
            print(f"\n{tuple(arguments.shape)} float32, {size} ranks of one thread, "
                  f"{'forward + backward' if backward else 'forward'}")
            base, base_cpu = medians(results[backward, "raw all_to_all_single pair"])
            for (_, name), values in (item for item in results.items() if item[0][0] == backward):
                median, cpu = medians(values)
                spread = statistics.median(abs(wall - median) for wall, _ in values)
                rate = sent * (4 if backward else 2) / median / 1e9
                print(f"  {name:50s} {1e3 * median:8.2f} ms +- {1e3 * spread:5.2f}   {rate:5.2f} GB/s   "
                      f"{median / base:5.2f} x raw   CPU {1e3 * cpu:7.2f} ms {cpu / base_cpu:5.2f} x raw")
                everything.append(dict(ranks=size, shape=arguments.shape, backward=backward, name=name,
                                       seconds_and_cpu_seconds=values))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(everything, indent=1))


def work_of_process(rank, *arguments):
    work(rank, *arguments)


if __name__ == "__main__":
    main()
