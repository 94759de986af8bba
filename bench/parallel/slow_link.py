#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether a convolution hides the exchange of its rows: two hosts, simulated with network namespaces, a rank of one
thread on each, and a link between them of some bits a second (0: as fast as this machine makes it). Each row of the
table is one run, contenders in turn:

    .venv/bin/python bench/parallel/slow_link.py --mbit 0 100 50 25

Needs the right to make namespaces."""

import argparse
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(SOURCE / one) for one in ("build/python", "tests/python", "bench/parallel")]

from turns import keep_memory, spread, take_turns  # noqa: E402

CHANNELS, ROWS, COLUMNS = 64, 192, 288   # of a rank


def times(rounds):
    """{contender: seconds of each round}, and the largest error of the convolution relative to its largest value."""
    import torch
    import torch.nn.functional as F
    import halcyon
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=generator) / (3 * CHANNELS**0.5)
    whole = torch.randn(1, CHANNELS, 2 * ROWS, COLUMNS, generator=generator)
    first = torch.distributed.get_rank() * ROWS
    x = whole[:, :, first:first + ROWS].clone()
    edges = x[:, :, [0, -1]].clone()
    y = halcyon.parallel.conv(x, weight, padding=1)
    wanted = F.conv2d(whole, weight, padding=1)[:, :, first:first + ROWS]

    def one_after_the_other():
        rows = halcyon.halo_exchange(x, 1)
        return F.conv2d(rows, weight, padding=(0, 1))

    contenders = {"local": lambda: F.conv2d(x, weight, padding=1), "rows": lambda: halcyon.halo_exchange(edges, 1),
                  "conv": lambda: halcyon.parallel.conv(x, weight, padding=1), "sequence": one_after_the_other}
    with torch.no_grad():
        return take_turns(contenders, rounds), float((y - wanted).abs().max() / wanted.abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=int, nargs="+", default=[0, 100, 50, 25])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    import hosts
    keep_memory()
    reason = hosts.why_not()
    if reason:
        sys.exit(f"no simulated hosts here: {reason}")
    print("| link, Mbit/s | local, ms | rows alone, ms | rows, then convolution, ms | domain-parallel, ms | of local | "
          "of the rows hidden |\n|--:|--:|--:|--:|--:|--:|--:|")
    for mbit in arguments.mbit:
        with hosts.Network(2) as network:
            for host in network.hosts if mbit else ():
                host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{mbit}mbit", "burst", "64kb",
                         "latency", "500ms")
            with hosts.HostRanks(network.hosts, timeout=60) as on_hosts:
                on_hosts.ask(times, arguments.rounds)
                taken, error = on_hosts.answers(600)[0]
        assert error < 1e-4, error
        found = {name: spread(one) for name, one in taken.items()}
        local, rows, conv = (found[name][0] for name in ("local", "rows", "conv"))
        columns = [f"{1e3 * found[name][0]:.1f} ± {1e3 * found[name][1]:.1f}"
                   for name in ("local", "rows", "sequence", "conv")]
        hidden = f"{100 * (local + rows - conv) / rows:.0f} %"
        print(f"| {mbit or '-'} | {' | '.join(columns)} | {conv / local:.2f} | {hidden} |", flush=True)


if __name__ == "__main__":
    main()
