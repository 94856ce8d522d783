"""Steps, memory and set-up time against the size of images, the batch and the network.

Every figure is of a new process, see `benchmarks.fresh`. With `--full` they are also kept in
`.benchmarks/sizes.json`, from which `python -m benchmarks.size_pictures` draws.
"""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import Case
from benchmarks.contenders import CONTENDERS
from benchmarks.processes import medians_of, take_turns, values_of
from benchmarks.races import Outcome, markdown_row
from benchmarks.test_fresh import start

FILE = Path(".benchmarks", "sizes.json")
STEPS = 5
R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
SMALLEST = Case((1, 1, 1, 1), edge=32, batch_size=1)
BASE = Case(R50, edge=128, batch_size=8)
AXES = {
    "pixels": [BASE._replace(edge=edge) for edge in (128, 224, 480)],
    "images": [BASE._replace(batch_size=size) for size in (1, 4, 16, 64)],
    "network": [BASE, BASE._replace(units=R101), BASE._replace(units=R152, width=2)],
}
# With each work the fastest form of this package's network and of its strongest peer.
SHOWN = {
    "forward": ("keras_bit, folded, jit_compile", "timm, channels_last"),
    "training step": ("keras_bit", "timm, channels_last"),
}


class SizeRace(NamedTuple):
    """Contenders on networks, images or batches that grow.

    Attributes:
        work: `"forward"` or `"training step"`.
        axis: Says what grows.
        cases: The `Case`s, the smallest first.
        names: The contenders' names.
        rounds: Number of processes of each contender on each case.
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
    def contenders(self):
        return {f"{case}: {name}": (case, name) for case in self.cases for name in self.names}

    def run(self, names):
        """Returns the `Outcome` for those of the `contenders` called `names`."""
        starts = {
            name: partial(start, self.work, *self.contenders[name], steps=STEPS) for name in names
        }
        found = take_turns(starts, self.rounds)
        medians = {name: medians_of(results) for name, results in found.items()}
        rows = {
            name: [
                {"case": case, **medians[f"{case}: {name}"]}
                for case in self.cases
                if f"{case}: {name}" in medians
            ]
            for name in self.names
        }
        if self.file is not None:
            keep(self.file, self.title, rows)
        lines = [
            line for name in self.names if rows[name] for line in self._table(name, rows[name])
        ]
        return Outcome(values_of(found, "step"), medians, lines)

    def _table(self, name, rows):
        headings = ["size", "images/s", "step, ms", "range", "times the first row's", "predicted"]
        headings += ["peak beyond imports, MB", "predicted, MB", "first result after, s"]
        yield from (f"{self.title}: {name}", "", markdown_row(headings), "|" + "---|" * 9)
        for row in rows:
            case, steps = row["case"], [row[f"{which} step"] for which in ("fastest", "slowest")]
            cells = [
                str(case),
                f"{case.batch_size / row['step']:.1f}",
                f"{1e3 * row['step']:,.0f}",
                "{:,.0f} to {:,.0f}".format(*(1e3 * seconds for seconds in steps)),
                f"{row['step'] / rows[0]['step']:.2f}",
                f"{predicted(self.work, case) / predicted(self.work, rows[0]['case']):.2f}",
                f"{1e-6 * row['peak beyond imports']:,.0f}",
                f"{1e-6 * case.training_bytes():,.0f}" if self.work != "forward" else "",
                f"{row['first']:.1f}",
            ]
            yield markdown_row(cells)
        yield ""


def predicted(work, case):
    """What the time of a step ought to be proportional to: its operations."""
    return case.operations(work) * case.batch_size


def keep(file, title, rows):
    """Adds the figures of one race, or of a piece of it, to those in `file`.

    The file has for each title, contender's name and case the last figures that were measured.
    """
    figures = json.loads(file.read_text()) if file.exists() else {}
    kept = figures.setdefault(title, {})
    for name, found in rows.items():
        kept.setdefault(name, {}).update({str(row["case"]): row for row in found})
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(figures, indent=1))


def races(full):
    if not full:
        cases = [SMALLEST, SMALLEST._replace(edge=64)]
        return [SizeRace("training step", "pixels", cases, ("keras_bit",), 1, None)]
    return [
        SizeRace(work, axis, cases, tuple(name for name in SHOWN[work] if name in present), 1, FILE)
        for axis, cases in AXES.items()
        for work, present in CONTENDERS.items()
    ]


def test_sizes(race, contender, report):
    report(race, contender)


def test_figures_of_several_runs_are_kept_together(tmp_path):
    file = tmp_path / "folder" / "sizes.json"
    larger = SMALLEST._replace(edge=64)
    for case, step in ((SMALLEST, 1.0), (larger, 2.0), (SMALLEST, 3.0)):
        keep(file, "forward by pixels", {"keras_bit": [{"case": case, "step": step}], "timm": []})
    keep(file, "forward by images", {})
    kept = json.loads(file.read_text())
    steps = {case: row["step"] for case, row in kept["forward by pixels"]["keras_bit"].items()}
    assert steps == {str(SMALLEST): 3.0, str(larger): 2.0}
    assert kept["forward by pixels"]["timm"] == kept["forward by images"] == {}
