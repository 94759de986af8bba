# SPDX-License-Identifier: Apache-2.0
"""Times HealDA's layers in PhysicsNeMo on the cases of bench/nn, bench/model, bench/ops and bench/obs, and halcyon beside them.

Each peer runs in a process of its own for each number of threads, PhysicsNeMo in the environment that
'bench/peers/setup.sh physicsnemo' installs. The first peer that runs a case gives its parameters to the others; every result,
in a pass with backward every gradient too, is compared with what that one gives in fp32; where halcyon is further off than
allowed, or anyone in fp32, it fails. Then they take turns, so that what disturbs the machine disturbs all. bf16 is autocast over fp32 parameters; fwd_bwd is a forward and a backward to all inputs and
parameters.
"""

import dataclasses
import pathlib
import re
import sys
import tempfile

try:
    from layer_cases import CASES
except ModuleNotFoundError as missing:
    sys.exit(f"healda: {sys.executable} has no {missing.name}; 'make setup' installs it in .venv")
import harness
from libraries import PEERS
from measuring import DTYPES
from report import Result, markdown

TITLE = "HealDA's layers beside their peers"
HEAD = """\
Median ± median absolute deviation in ms (least; runs), then GFLOP/s of the matrix products and attention, a backward counted as
two forwards. ×: the time over halcyon's of the same rounds; above 1, halcyon is faster. physicsnemo runs with TorchDynamo off,
physicsnemo-compiled as shipped (temporal attention is compiled). padded-sdpa: torch's masked attention over observations padded
to the longest pixel; of pixel_attention alone, after projecting and padding; elsewhere in the place of PhysicsNeMo's loop over
pixels, which is a reference. gemms-aten and gemms-onednn: only the two linear layers of temporal attention, by each library, in
bf16 with the casts to it.
"""
ASIDE = ("gemms-aten", "gemms-onednn")


@dataclasses.dataclass
class LayerResult(Result):
    """operation: the table."""

    @property
    def table(self):
        return f"{self.operation}, {self.threads} threads"

    @property
    def row(self):
        return f"{self.case}/{'fwd_bwd' if self.backward else 'fwd'}/{self.dtype}"


def arguments():
    parser = harness.parser(__doc__, [case.name for case in CASES], PEERS, ("fwd", "fwd_bwd"), DTYPES)
    parser.add_argument("--filter", default="", metavar="REGEX", help="cases whose names it is found in (default: all)")
    return parser.parse_args()


def flops(case, peer, backward):
    return 0 if PEERS[peer].linear else case.flops * (3 if backward else 1)


def run(options, chosen, cases, threads, results, said):
    peers = harness.remotes(options, "layer", chosen, threads)
    said.append(harness.machine(peers, threads))
    print(said[-1], flush=True)
    plan = [(case, step == "fwd_bwd", [dtype for dtype in options.dtypes if dtype in case.dtypes])
            for case in cases for step in options.passes if step in case.passes]
    told = set()
    for done, (case, backward, dtypes) in enumerate(plan, 1):
        with tempfile.TemporaryDirectory(prefix="healda-") as folder:
            for dtype in dtypes:
                found = {name: LayerResult(threads, case.table, backward, dtype, case.name, name, flops(case, name, backward))
                         for name in peers}
                print(f"[{done}/{len(plan)}] {next(iter(found.values())).row}", flush=True)
                harness.measure(options, peers, found, lambda one: {
                    "case": one.case, "dtype": one.dtype, "backward": one.backward,
                    "reference": str(pathlib.Path(folder) / PEERS[one.peer].work)})
                results += found.values()
                harness.show(found.values(), told)
                harness.write(options, results, markdown(results, said, TITLE, HEAD, ASIDE))
    for peer in peers.values():
        peer.close()


def main():
    options = arguments()
    peers = harness.chosen(options.peers, PEERS.values(), "peer")
    cases = harness.chosen(options.filter, CASES, "case", re.search)
    results, said = [], []
    for threads in options.threads:
        run(options, peers, cases, threads, results, said)
    print("\n" + markdown(results, said, TITLE, HEAD, ASIDE))
    harness.finish(results)


if __name__ == "__main__":
    main()
