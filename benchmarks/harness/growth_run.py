"""Interleaved processes on networks, images or batches that grow, beside what theory predicts."""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.cases import UNITS, Case
from benchmarks.harness.interleaved import Outcome, interleave
from benchmarks.harness.processes import measure_network, medians_of, values_of
from benchmarks.harness.tables import markdown_table

FILE = Path(".benchmarks", "sizes.json")
STEPS = 5
BASE = Case(UNITS["R50"], edge=128, batch_size=8)
AXES = {
    "pixels": [BASE._replace(edge=edge) for edge in (128, 224, 480)],
    "images": [BASE._replace(batch_size=size) for size in (1, 4, 16, 64)],
    "network": [
        BASE,
        BASE._replace(units=UNITS["R101"]),
        BASE._replace(units=UNITS["R152"], width=2),
    ],
}


class GrowthRun(NamedTuple):
    """Implementations on networks, images or batches that grow.

    Attributes:
        work: `"forward"` or `"training step"`.
        axis: Says what grows.
        cases: The `Case`s, the smallest first.
        names: The implementations' names.
        rounds: Number of processes of each implementation on each case.
        file: Where to keep the figures, or `None`.
    """

    work: str
    axis: str
    cases: list
    names: tuple
    rounds: int
    file: Path | None

    @property
    def title(self):
        return f"{self.work} by {self.axis}"

    @property
    def implementations(self):
        return {f"{case}: {name}": (case, name) for case in self.cases for name in self.names}

    def run(self, names):
        """Returns the `Outcome` for those of the `implementations` called `names`."""
        starts = {
            name: partial(measure_network, self.work, *self.implementations[name], steps=STEPS)
            for name in names
        }
        found, failed = interleave(starts, self.rounds)
        figures = {name: summarized(results) for name, results in found.items()}
        rows = {
            name: [
                {"case": case, **figures[f"{case}: {name}"]}
                for case in self.cases
                if f"{case}: {name}" in figures
            ]
            for name in self.names
        }
        if self.file is not None:
            keep(self.file, self.title, rows)
        lines = [
            line for name in self.names if rows[name] for line in self._table(name, rows[name])
        ]
        return Outcome(values_of(found, "step"), figures, lines, failed)

    def _table(self, name, rows):
        headings = ["size", "images/s", "step, ms", "range", "times the first row's", "predicted"]
        headings += ["peak beyond imports, MB", "predicted, MB", "first result after, s"]
        cells = [self._cells(row, rows[0]) for row in rows]
        return [f"{self.title}: {name}", "", *markdown_table(headings, cells), ""]

    def _cells(self, row, first):
        case, seconds = row["case"], row["step"]
        growth = predicted(self.work, case) / predicted(self.work, first["case"])
        return [
            case,
            f"{case.batch_size / seconds:.1f}",
            f"{1e3 * seconds:,.0f}",
            f"{1e3 * row['fastest step']:,.0f} to {1e3 * row['slowest step']:,.0f}",
            f"{seconds / first['step']:.2f}",
            f"{growth:.2f}",
            f"{1e-6 * row['peak beyond imports']:,.0f}",
            f"{1e-6 * case.training_bytes():,.0f}" if self.work != "forward" else "",
            f"{row['first']:.1f}",
        ]


def summarized(results):
    """Medians over processes; of the fastest and the slowest step those of all processes."""
    return medians_of(results) | {
        "fastest step": min(result["fastest step"] for result in results),
        "slowest step": max(result["slowest step"] for result in results),
    }


def predicted(work, case):
    """What the time of a step ought to be proportional to: its operations."""
    return case.operations(work) * case.batch_size


def keep(file, title, rows):
    """Adds the figures of one run, or of a part of it, to those in `file`.

    The file has for each title, implementation's name and case the last figures that were measured.
    """
    figures = json.loads(file.read_text()) if file.exists() else {}
    kept = figures.setdefault(title, {})
    for name, found in rows.items():
        kept.setdefault(name, {}).update({str(row["case"]): row for row in found})
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(figures, indent=1))
