# SPDX-License-Identifier: Apache-2.0
"""Times the peers of spec section 15 on the cases of bench/ops/neighborhood_bench.cpp, and halcyon beside them.

Each peer runs in an environment of bench/peers/setup.sh and in a process of its own for each number of threads. A case is
prepared in all of them, each result is compared with a reference in double precision, and then they take turns, so that what
disturbs the machine disturbs all. Each peer gets tensors in the layout it likes best; masks, block masks and compilation are
not timed, except natten-0.21.7's mask, which it makes in every call. The backward is timed alone, on a kept graph.
"""

import sys

try:
    from kinds import PEERS
except ModuleNotFoundError as missing:
    sys.exit(f"neighborhood: {sys.executable} has no {missing.name}; 'make setup' installs it in .venv")
import harness
from measuring import DTYPES
from operations import NAMES, useful_flops
from problems import CASES, Grid
from remote import PeerError
from report import Result, markdown

TITLE = "Neighborhood attention beside its peers"
HEAD = """\
Median ± median absolute deviation in ms (least; runs), then useful GFLOP/s: forward 4 T W d H, backward 8, a half of it for
qk and av alone, W the whole window also where it is causal. ×: the time over halcyon's of the same rounds; above 1, halcyon is
faster. sdpa-dense attends to the whole sphere, another function; its GFLOP/s count the window's pairs all the same.
"""


def arguments():
    parser = harness.parser(__doc__, [p.name for p in CASES], PEERS, ("fwd", "bwd"), DTYPES)
    parser.add_argument("--cases", default="[123]d_.*", metavar="REGEX",
                        help="whole names (default: those of the bench; sphere_6 takes hours)")
    parser.add_argument("--operations", nargs="+", choices=NAMES, default=NAMES)
    return parser.parse_args()


def try_all(peers):
    """Ends at once where one of them cannot work, rather than after hours."""
    for name, peer in peers.items():
        case = "small_sphere" if name == "sdpa-dense" else "small_1d"
        try:
            peer.ask("prepare", case=case, operation="attention", dtype="fp32", backward=False)
            peer.ask("drop")
        except PeerError as error:
            sys.exit(f"neighborhood: {name} does not work: {error}; leave it out with --peers, or see its log")


def measure(options, peers, problem, results):
    harness.measure(options, peers, results, lambda one: {
        "case": problem.name, "operation": one.operation, "dtype": one.dtype, "backward": one.backward})
    for one in results.values():
        if one.samples:
            one.flops = useful_flops(problem, one.operation, one.backward)
    return list(results.values())


def run(options, chosen, cases, threads, results, said):
    peers = harness.remotes(options, "attention", chosen, threads)
    said.append(harness.machine(peers, threads))
    print(said[-1], flush=True)
    try_all(peers)
    plan = [(problem, operation, step == "bwd", dtype) for operation in options.operations for step in options.passes
            for dtype in options.dtypes for problem in cases if operation == "attention" or isinstance(problem, Grid)]
    told = set()
    for done, (problem, operation, backward, dtype) in enumerate(plan, 1):
        empty = {name: Result(threads, operation, backward, dtype, problem.name, name) for name in peers}
        print(f"[{done}/{len(plan)}] {problem.name} {next(iter(empty.values())).table}", flush=True)
        found = measure(options, peers, problem, empty)
        results += found
        harness.show(found, told)
        harness.write(options, results, markdown(results, said, TITLE, HEAD, aside=("sdpa-dense",)))
    for peer in peers.values():
        peer.close()


def main():
    options = arguments()
    peers = harness.chosen(options.peers, PEERS.values(), "peer")
    cases = harness.chosen(options.cases, CASES, "case")
    results, said = [], []
    for threads in options.threads:
        run(options, peers, cases, threads, results, said)
    harness.finish(results)


if __name__ == "__main__":
    main()
