# SPDX-License-Identifier: Apache-2.0
"""Times the peers of spec section 15 on the cases of bench/ops/neighborhood_bench.cpp, and halcyon beside them.

Each peer runs in an environment of bench/peers/setup.sh and in a process of its own for each number of threads. A case is
prepared in all of them, each result is compared with a reference in double precision, and then they take turns, so that what
disturbs the machine disturbs all. Each peer gets tensors in the layout it likes best; masks, block masks and compilation are
not timed, except natten-0.21.7's mask, which it makes in every call. The backward is timed alone, on a kept graph.
"""

import argparse
import collections
import dataclasses
import json
import math
import pathlib
import re
import sys

try:
    from kinds import PEERS
except ModuleNotFoundError as missing:
    sys.exit(f"neighborhood: {sys.executable} has no {missing.name}; 'make setup' installs it in .venv")
from operations import DTYPES, NAMES, useful_flops
from problems import CASES, Grid
from remote import PeerError, Remote
from report import Result, markdown

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
ROUNDS, FEWEST, MOST = 5, 3, 100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="cases: " + ", ".join(p.name for p in CASES) + "\npeers: " + ", ".join(PEERS))
    add = parser.add_argument
    add("--into", type=pathlib.Path, default=SOURCE / "build" / "peers", help="the folder given to setup.sh (build/peers)")
    add("--halcyon", metavar="PYTHONPATH", help="also time halcyon, imported from there (build/python)")
    add("--python", default=sys.executable, help="halcyon's interpreter (default: this one)")
    add("--cases", default="[123]d_.*", metavar="REGEX",
        help="whole names (default: those of the bench; sphere_6 takes hours)")
    add("--peers", default=".*", metavar="REGEX")
    add("--operations", nargs="+", choices=NAMES, default=NAMES)
    add("--passes", nargs="+", choices=("fwd", "bwd"), default=("fwd", "bwd"))
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--seconds", type=float, default=2, help="of runs for each peer and case; at least 3 runs (default: 2)")
    add("--long", type=float, default=10, metavar="SECONDS", help="a run longer than this is timed once (default: 10)")
    add("--markdown", type=pathlib.Path, metavar="FILE", help="write tables there, anew after every case")
    add("--json", type=pathlib.Path, metavar="FILE", help="write every sample there, anew after every case")
    return parser.parse_args()


def chosen(pattern, names, what):
    found = [name for name in names if re.fullmatch(pattern, name)]
    if not found:
        sys.exit(f"neighborhood: no {what} matches {pattern!r}; there are {', '.join(names)}")
    return found


def remotes(options, names, threads):
    """{name: Remote} of the peers that are installed; says which are not."""
    found = {}
    for name in names:
        folder = options.into / PEERS[name].environment
        if name == "halcyon":
            if not options.halcyon:
                continue
            python, path = options.python, str(pathlib.Path(options.halcyon).resolve())
        else:
            python, path = folder / "bin" / "python", ""
            if not (folder / "installed").exists():
                sys.exit(f"neighborhood: {folder} is missing, which {name} needs; run bench/peers/setup.sh --into {options.into}")
        log = open(options.into / f"{name}-{threads}.log", "w")
        found[name] = Remote(name, python, threads, path, options.into / "compiled", log)
    return found


def machine(peers, threads):
    """What the first peer with torch of its own says of it, measured now."""
    said = next(iter(peers.values())).ask("peaks")
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    rates = ", ".join(f"{rate:.0f} {name}" for name, rate in said["peaks"].items())
    return (f"{threads} threads of {model[1] if model else 'an unknown processor'}, {said['capability']}, torch {said['torch']}; "
            f"torch.mm 2048: {rates} GFLOP/s")


def try_all(peers):
    """Ends at once where one of them cannot work, rather than after hours."""
    for name, peer in peers.items():
        case = "small_sphere" if name == "sdpa-dense" else "small_1d"
        try:
            peer.ask("prepare", case=case, operation="attention", dtype="fp32", backward=False)
            peer.ask("drop")
        except PeerError as error:
            sys.exit(f"neighborhood: {name} does not work: {error}; leave it out with --peers, or see its log")


def measure(options, peers, problem, result):
    """One Result of each peer; result(name) makes an empty one."""
    results, left, share = {}, collections.Counter(), {}
    for name, peer in peers.items():
        one = results[name] = result(name)
        try:
            answer = peer.ask("prepare", case=problem.name, operation=one.operation, dtype=one.dtype, backward=one.backward)
        except PeerError as error:
            one.failure = str(error)
            continue
        one.refusal = answer.get("refused", "")
        if not one.refusal:
            seconds = answer["seconds"]
            print(f"    {name} agrees with the reference, {seconds:.3g} s", file=sys.stderr, flush=True)
            left[name] = 1 if seconds > options.long else min(max(math.ceil(options.seconds / seconds), FEWEST), MOST)
            share[name] = {"runs": math.ceil(left[name] / ROUNDS), "warm": seconds < 1}
    while left.total() > 0:
        for name in [name for name in left if left[name] > 0]:
            left[name] -= share[name]["runs"]
            try:
                results[name].samples += peers[name].ask("time", **share[name])["samples"]
            except PeerError as error:
                results[name].failure, results[name].samples, left[name] = str(error), [], 0
    for name, one in results.items():
        if one.samples:
            one.flops = useful_flops(problem, one.operation, one.backward)
            peers[name].ask("drop")
    return list(results.values())


def write(options, results, said):
    if options.markdown:
        options.markdown.write_text(markdown(results, said))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1))


def run(options, names, cases, threads, results, said):
    peers = remotes(options, names, threads)
    if not peers:
        sys.exit("neighborhood: nothing to time; halcyon needs --halcyon PYTHONPATH")
    said.append(machine(peers, threads))
    print(said[-1], flush=True)
    try_all(peers)
    plan = [(problem, operation, step == "bwd", dtype) for operation in options.operations for step in options.passes
            for dtype in options.dtypes for problem in cases if operation == "attention" or isinstance(problem, Grid)]
    told = set()
    for done, (problem, operation, backward, dtype) in enumerate(plan, 1):
        table = Result(threads, operation, backward, dtype, problem.name, "").table
        print(f"[{done}/{len(plan)}] {problem.name} {table}", flush=True)
        for one in measure(options, peers, problem,
                           lambda name: Result(threads, operation, backward, dtype, problem.name, name)):
            results.append(one)
            if (one.peer, one.refusal) not in told:
                print("  " + one.line(), flush=True)
            if one.refusal:  # said once
                told.add((one.peer, one.refusal))
        write(options, results, said)
    for peer in peers.values():
        peer.close()


def main():
    options = arguments()
    names = chosen(options.peers, list(PEERS), "peer")
    cases = [p for p in CASES if p.name in chosen(options.cases, [p.name for p in CASES], "case")]
    results, said = [], []
    for threads in options.threads:
        run(options, names, cases, threads, results, said)
    failed = sum(bool(r.failure) for r in results)
    sys.exit(f"neighborhood: {failed} of {len(results)} failed" if failed else 0)


if __name__ == "__main__":
    main()
