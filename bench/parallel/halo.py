# SPDX-License-Identifier: Apache-2.0
"""HaloExchange beside CREDIT's (miles-credit 2026.2.0), taking turns on the same ranks; one thread a rank.

    bench/peers/setup.sh credit
    .venv/bin/python bench/parallel/halo.py --markdown halo.md"""

import argparse
import importlib.util
import itertools
import math
import pathlib
import sys
import types

from turns import SOURCE, run, spread, take_turns

SHAPES = [(1, 64, 192, 288), (1, 64, 181, 360)]


def _without_init(name):
    """The package as its folder: its __init__ imports models and what those need, which the exchange does not."""
    found = importlib.util.find_spec(name)
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)


def credit_module(width, ranks):
    for name in ("credit", "credit.domain_parallel"):
        if name not in sys.modules:
            _without_init(name)
    from credit.domain_parallel.halo_exchange import HaloExchange
    from credit.domain_parallel.manager import get_domain_parallel_manager, initialize_domain_parallel
    if get_domain_parallel_manager() is None:
        initialize_domain_parallel(ranks, ranks)
    return HaloExchange(width)


def case(shape, widths, rounds, with_credit):
    import torch

    import halcyon
    ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    rows = {}
    whole = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for width in widths:
        mine = whole.tensor_split(ranks, -2)[rank].clone().requires_grad_()
        modules = {"halcyon": halcyon.HaloExchange(width)}
        if with_credit:
            modules["credit"] = credit_module(width, ranks)
        outs = {name: module(mine) for name, module in modules.items()}
        cotangent = torch.randn(outs["halcyon"].shape)
        grads = {name: torch.autograd.grad(out, mine, cotangent)[0] for name, out in outs.items()}
        for name in modules:  # each beside ours
            assert torch.equal(outs[name], outs["halcyon"]), name
            torch.testing.assert_close(grads[name], grads["halcyon"], rtol=0, atol=1e-5)

        def forward(module):
            with torch.no_grad():
                module(mine)

        def both(module):
            torch.autograd.grad(module(mine), mine, cotangent)

        for name, function in (("forward", forward), ("forward + backward", both)):
            times = take_turns({peer: lambda m=module, f=function: f(m) for peer, module in modules.items()}, rounds)
            rows[width, name] = {peer: spread(values) for peer, values in times.items()}
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halcyon", type=pathlib.Path, default=SOURCE / "build" / "python")
    parser.add_argument("--into", type=pathlib.Path, default=SOURCE / "build" / "peers", help="the folder given to setup.sh")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--alone", action="store_true", help="without CREDIT")
    parser.add_argument("--markdown", type=pathlib.Path)
    options = parser.parse_args()
    path = [str(options.halcyon.resolve())]
    if not options.alone:
        path += [str(one) for one in (options.into / "credit").glob("lib/python3*/site-packages")]
    lines = ["| tensor | ranks | width | pass | halcyon, ms | CREDIT, ms | ratio |", "|---|---|---|---|---|---|---|"]
    ratios = {}
    for shape, ranks in itertools.product(SHAPES, options.ranks):
        rows = run(ranks, case, shape, options.widths, options.rounds, not options.alone, path=path)
        for (width, name), times in rows.items():
            ours, deviation = times["halcyon"]
            theirs = times.get("credit", (math.nan, 0))[0]
            ratios.setdefault(name, []).append(theirs / ours)
            lines.append(f"| {shape} | {ranks} | {width} | {name} | {1e3 * ours:.2f} ± {1e3 * deviation:.2f} | "
                         f"{1e3 * theirs:.2f} | {theirs / ours:.2f} |")
            print(lines[-1], flush=True)
    for name, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"{name}: geometric mean of the ratios {mean:.2f}, least {min(values):.2f}")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
