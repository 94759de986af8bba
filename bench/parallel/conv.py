# SPDX-License-Identifier: Apache-2.0
"""A 3x3 convolution whose rows are cut over ranks against the ordinary one of each rank's own rows, forward and forward
with backward: what a rank pays for its neighbours. One thread a rank; rounds of both in turn, each begun together, and
of each round the slowest rank counts. Run with PYTHONPATH=build/python; --ranks 2 4."""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F

import halcyon
from turns import keep_memory

CHANNELS, ROWS, COLUMNS = 64, 192, 288   # of a rank


def whole(ranks):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, CHANNELS, ranks * ROWS, COLUMNS, generator=generator)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=generator) / (3 * CHANNELS**0.5)
    return x, weight, torch.randn(CHANNELS, generator=generator)


def worst(mine, wanted):
    return float((mine - wanted).abs().max() / wanted.abs().max())


def verify(rank, ranks, y, x, weight):
    """The largest error of this rank's results against one process, relative to the largest value."""
    all_rows, w, bias = whole(ranks)
    all_rows.requires_grad_()
    w.requires_grad_()
    wanted = F.conv2d(all_rows, w, bias, padding=1)
    wanted.backward(torch.ones_like(wanted))
    mine = slice(rank * ROWS, (rank + 1) * ROWS)
    total = weight.grad.clone()
    torch.distributed.all_reduce(total)
    return max(worst(y.detach(), wanted.detach()[:, :, mine]), worst(x.grad, all_rows.grad[:, :, mine]),
               worst(total, w.grad))


def measure(rank, ranks, store, rounds, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    x, weight, bias = whole(ranks)
    x = x[:, :, rank * ROWS:(rank + 1) * ROWS].clone().requires_grad_()
    weight.requires_grad_()
    edges = x.detach()[:, :, :2].clone()
    cotangent = torch.ones_like(x)

    def local():
        return F.conv2d(x, weight, bias, padding=1)

    def parallel():
        return halcyon.parallel.conv(x, weight, bias, padding=1)

    def forward(f):
        with torch.no_grad():
            return f()

    def both(f):
        x.grad = weight.grad = None
        y = f()
        y.backward(cotangent)
        return y

    cases = {"local forward": lambda: forward(local), "parallel forward": lambda: forward(parallel),
             "local forward and backward": lambda: both(local), "parallel forward and backward": lambda: both(parallel),
             "the rows alone": lambda: halcyon.halo_exchange(edges, 1)}
    times = {name: [] for name in cases}
    for index in range(rounds + 2):
        turn = index % len(cases)   # none of them always comes after the same other
        for name, run in list(cases.items())[turn:] + list(cases.items())[:turn]:
            torch.distributed.barrier()
            begun = time.perf_counter()
            run()
            taken = torch.tensor(time.perf_counter() - begun)
            torch.distributed.all_reduce(taken, torch.distributed.ReduceOp.MAX)
            if index >= 2:
                times[name].append(1e3 * float(taken))
    error = verify(rank, ranks, both(parallel), x, weight)
    results.put((rank, times, error))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def report(ranks, times, error):
    print(f"{ranks} ranks of (1, {CHANNELS}, {ROWS}, {COLUMNS}) float32, largest relative error {error:.1e}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        spread = statistics.median(abs(one - middle) for one in taken)
        line = f"  {name:<32}{middle:9.2f} ms +- {spread:.2f}"
        if name.startswith("parallel"):
            ratios = [one / other for one, other in zip(taken, times[name.replace("parallel", "local")])]
            line += f"   {statistics.median(ratios):.3f} of the local one"
        if name == "the rows alone":
            line += f"   {middle / statistics.median(times['parallel forward']):.3f} of the parallel forward"
        print(line, flush=True)
    assert error < 1e-4, error


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_memory()
    context = multiprocessing.get_context("spawn")
    for ranks in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            results = context.Queue()
            processes = [context.Process(target=measure, args=(rank, ranks, os.path.join(folder, "store"),
                                                               arguments.rounds, results)) for rank in range(ranks)]
            for process in processes:
                process.start()
            found = sorted(results.get() for _ in processes)
            for process in processes:
                process.join()
        report(ranks, found[0][1], max(error for _, _, error in found))


if __name__ == "__main__":
    main()
