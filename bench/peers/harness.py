# SPDX-License-Identifier: Apache-2.0
"""What the scripts that time peers share: options, the peers' processes, and how they take turns."""

import argparse
import collections
import dataclasses
import json
import math
import pathlib
import re
import sys

from remote import PeerError, Remote

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
ROUNDS, FEWEST, MOST = 5, 3, 100


def parser(description, cases, peers, passes, dtypes):
    """With the options that every script has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                   epilog="cases: " + ", ".join(cases) + "\npeers: " + ", ".join(peers))
    add = made.add_argument
    add("--into", type=pathlib.Path, default=SOURCE / "build" / "peers", help="the folder given to setup.sh (build/peers)")
    add("--halcyon", metavar="FOLDER", help="also time halcyon, imported from there (build/python)")
    add("--python", default=sys.executable, help="halcyon's interpreter (default: this one)")
    add("--peers", default=".*", metavar="REGEX", help="whole names")
    add("--passes", nargs="+", choices=passes, default=passes)
    add("--dtypes", nargs="+", choices=dtypes, default=list(dtypes))
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--rounds", type=int, default=ROUNDS, help=f"turns of each peer in a case (default: {ROUNDS})")
    add("--seconds", type=float, default=2, help=f"of runs for each peer and case; at least {FEWEST} runs (default: 2)")
    add("--long", type=float, default=10, metavar="SECONDS", help="a run longer than this is timed once (default: 10)")
    add("--markdown", type=pathlib.Path, metavar="FILE", help="write tables there, anew after every case")
    add("--json", type=pathlib.Path, metavar="FILE", help="write every sample there, anew after every case")
    return made


def chosen(pattern, among, what, match=re.fullmatch):
    """Those whose names match."""
    found = [one for one in among if match(pattern, one.name)]
    if not found:
        sys.exit(f"{script()}: no {what} matches {pattern!r}; there are {', '.join(one.name for one in among)}")
    return found


def script():
    return pathlib.Path(sys.argv[0]).stem


def remotes(options, subject, peers, threads):
    """{name: Remote} of these peers; ends where one is not installed."""
    found = {}
    for peer in peers:
        python, path = options.python, ""
        if peer.name == "halcyon":
            if not options.halcyon:
                continue
            path = str(pathlib.Path(options.halcyon).resolve())
        elif peer.environment:
            folder = options.into / peer.environment
            python = folder / "bin" / "python"
            if not (folder / "installed").exists():
                sys.exit(f"{script()}: {folder} is missing, which {peer.name} needs; "
                         f"run bench/peers/setup.sh --into {options.into} {peer.environment}")
        options.into.mkdir(parents=True, exist_ok=True)
        log = open(options.into / f"{peer.name}-{threads}.log", "w")
        found[peer.name] = Remote(subject, peer.name, python, threads, path, options.into / "compiled", log,
                                  getattr(peer, "variables", None))
    if not found:
        sys.exit(f"{script()}: nothing to time; halcyon needs --halcyon FOLDER")
    return found


def machine(peers, threads):
    """What the first peer with torch of its own says of it, measured now."""
    said = next(iter(peers.values())).ask("peaks")
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    rates = "; ".join(f"{name} {rate:.3g}" for name, rate in said["peaks"].items())
    return (f"{threads} threads of {model[1] if model else 'an unknown processor'}, {said['capability']}, torch {said['torch']}; "
            f"{rates}")


def measure(options, peers, results, request):
    """Prepares a case in every peer, then lets them take turns. Fills in results, one of each peer's name; request(result) is
    what its peer is asked to prepare."""
    left, share = collections.Counter(), {}
    for name, one in results.items():
        try:
            answer = peers[name].ask("prepare", **request(one))
        except PeerError as error:
            one.failure = str(error)
            continue
        one.refusal = answer.get("refused", "")
        if not one.refusal:
            one.note, seconds = answer["note"], answer["seconds"]
            print(f"    {name} {answer['verdict']}, {seconds:.3g} s", file=sys.stderr, flush=True)
            left[name] = 1 if seconds > options.long else min(max(math.ceil(options.seconds / seconds), FEWEST), MOST)
            share[name] = {"runs": math.ceil(left[name] / options.rounds), "warm": seconds < 1}
    while left.total() > 0:
        for name in [name for name in left if left[name] > 0]:
            left[name] -= share[name]["runs"]
            try:
                results[name].samples += peers[name].ask("time", **share[name])["samples"]
            except PeerError as error:
                results[name].failure, results[name].samples, left[name] = str(error), [], 0
    for name, one in results.items():
        if one.samples:
            peers[name].ask("drop")


def show(results, told):
    """A line each; the same refusal is said once."""
    for one in results:
        if (one.peer, one.refusal) not in told:
            print("  " + one.line(), flush=True)
        if one.refusal:
            told.add((one.peer, one.refusal))


def write(options, results, text):
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1))


def finish(results):
    failed = sum(bool(r.failure) for r in results)
    sys.exit(f"{script()}: {failed} of {len(results)} failed" if failed else 0)
