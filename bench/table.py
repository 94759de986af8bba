# SPDX-License-Identifier: Apache-2.0
"""The table of the benchmarks beside the peer's figures (peer.csv), from google-benchmark's JSON files.

Usage: table.py FOLDER. Times are medians in ms; the ratio is the peer's time over ours: above 1, ours is faster.
"""

import collections
import csv
import json
import pathlib
import sys

PASSES = ("fwd", "fwd_bwd")


def read_ours(folder):
    """{row: {(pass, precision): benchmark}} and the context of the last file."""
    rows, context = collections.OrderedDict(), {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text() or "{}")
        context = data.get("context", context)
        for case in data.get("benchmarks", []):
            row, size, rest = case["name"].split("/iterations:")[0].split("/", 2)
            step, _, precision = rest.partition("/")
            rows.setdefault(f"{row}/{size}", {})[step, precision or "fp32"] = case
    return rows, context


def read_peer(path):
    """{row: [(name, {(pass, precision): ms})]}"""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = {}
    for record in csv.DictReader(lines):
        row, name = record.pop("row"), record.pop("peer")
        times = {tuple(key.split()): float(ms) for key, ms in record.items() if ms}
        rows.setdefault(row, []).append((name, times))
    return rows


def shown(ms):
    return "" if ms is None else f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def ours(case):
    if case is None:
        return None, ""
    if case.get("error_occurred"):
        return None, "wrong"
    ms = case["real_time"]
    return ms, f"{shown(ms)} ±{shown(case['mad_ms'])} ({100 * case['of_peak']:.0f} %)"


def lines_of(row, precision, cases, peers):
    times, texts = zip(*(ours(cases.get((step, precision))) for step in PASSES))
    for name, figures in peers or [("", {})]:
        theirs = [figures.get((step, precision)) for step in PASSES]
        ratios = [f"{b / a:.2f}" if a and b else "" for a, b in zip(times, theirs)]
        peer = " / ".join(filter(None, map(shown, theirs)))
        yield [row, precision, *texts, f"{peer} {name}" if peer else "", " / ".join(filter(None, ratios))]


def main(folder):
    rows, context = read_ours(pathlib.Path(folder))
    peers = read_peer(pathlib.Path(__file__).with_name("peer.csv"))
    known = [key for key in ("threads", "cpu_capability", "peak_fp32_gflops", "peak_bf16_gflops", "peak_gbytes") if key in context]
    print(", ".join(f"{key} {context[key]}" for key in known) + "\n")
    table = [["layer", "", "ours fwd", "ours f+b", "peer (spec section 24)", "ratio"]]
    for row, cases in rows.items():
        for precision in ("fp32", "bf16"):
            if any(key[1] == precision for key in cases):
                table += lines_of(row, precision, cases, peers.get(row))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for i, line in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if i == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    main(sys.argv[1])
