# SPDX-License-Identifier: Apache-2.0
"""What was measured: a line each while it runs, and Markdown tables."""

import dataclasses
import itertools
import statistics


@dataclasses.dataclass
class Result:
    threads: int
    operation: str
    backward: bool
    dtype: str
    case: str
    peer: str
    flops: float = 0
    samples: list = dataclasses.field(default_factory=list)  # seconds
    refusal: str = ""
    failure: str = ""
    note: str = ""

    @property
    def median(self):
        return statistics.median(self.samples)

    @property
    def deviation(self):
        return statistics.median(abs(s - self.median) for s in self.samples)

    @property
    def rate(self):
        return self.flops / self.median * 1e-9

    @property
    def table(self):
        """The title of the table that it is in."""
        return f"{self.operation} {'backward' if self.backward else 'forward'}, {self.dtype}, {self.threads} threads"

    @property
    def row(self):
        return self.case

    def line(self):
        start = f"{self.peer:<22}"
        if not self.samples:
            return f"{start} {'FAILED: ' + self.failure if self.failure else '- ' + self.refusal}"
        return (f"{start}{self.median * 1e3:11.3f} ms ±{self.deviation * 1e3:<8.3g} min {min(self.samples) * 1e3:<10.3f} "
                f"{len(self.samples):3} runs" + (f" {self.rate:9.2f} GFLOP/s" if self.flops else "")
                + (f"  {self.note}" if self.note else ""))


def _ms(seconds):
    ms = seconds * 1e3
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"


def _cell(result, ours):
    if result is None or not result.samples:
        return "failed" if result and result.failure else "-"
    ratio = f", ×{result.median / ours.median:.2f}" if ours and ours is not result else ""
    rate = f", **{result.rate:.3g}**" if result.flops else ""
    return f"{_ms(result.median)} ±{_ms(result.deviation)} ({_ms(min(result.samples))}; {len(result.samples)}){rate}{ratio}"


def _best(results, ours, aside):
    others = [r for r in results if r.samples and r is not ours and r.peer not in aside]
    if not ours or not others:
        return "-"
    best = min(others, key=lambda r: r.median)
    return f"×{best.median / ours.median:.2f} {best.peer}"


def _rows(results, aside):
    shown = [peer for peer in dict.fromkeys(r.peer for r in results) if any(r.samples for r in results if r.peer == peer)]
    yield ["case", *shown, "best peer"]
    for row, group in itertools.groupby(results, key=lambda r: r.row):
        cells = {r.peer: r for r in group}
        ours = cells.get("halcyon")
        ours = ours if ours and ours.samples else None
        yield [row, *(_cell(cells.get(peer), ours) for peer in shown), _best(cells.values(), ours, aside)]


def markdown(results, machine, title, head, aside=()):
    """Tables of the results in their order. aside: peers that do something else, and so are never the best."""
    lines = [f"# {title}", "", *machine, "", *head.splitlines()]
    for table, group in itertools.groupby(results, key=lambda r: r.table):
        group = list(group)
        if not any(r.samples for r in group):
            continue
        rows = list(_rows(group, aside))
        lines += ["", f"## {table}", "", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
    missing = dict.fromkeys(f"{r.peer}: {r.refusal}" for r in results if r.refusal)
    lines += ["", "Not timed: " + "; ".join(missing) + "."] if missing else []
    for heading, what in ("Noted", "note"), ("Failed", "failure"):
        told = [f"- {r.row} {r.table}, {r.peer}: {getattr(r, what)}" for r in results if getattr(r, what)]
        lines += ["", f"{heading}:", *told] if told else []
    return "\n".join(lines) + "\n"
