"""Draws the figures that the suite of sizes keeps with `--full`, and what theory predicts.

python -m benchmarks.studies.size_pictures [FILE]
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.cases import Case
from benchmarks.harness.growth_run import AXES, FILE, predicted
from benchmarks.harness.pictures import FOLDER, import_pyplot, save_picture


class Axis(NamedTuple):
    """What grows along an axis: its name, and from a case the value and what stands at it."""

    name: str
    value: Callable
    label: Callable


SIZES = {
    "pixels": Axis(
        "images (scaled by their pixels)",
        lambda case: case.edge**2,
        lambda case: f"{case.edge} px",
    ),
    "images": Axis(
        "images in a batch",
        lambda case: case.batch_size,
        lambda case: str(case.batch_size),
    ),
    "network": Axis(
        "network (scaled by its operations)",
        lambda case: case.operations("forward"),
        lambda case: case.network,
    ),
}


def draw(forward, training, axis):
    """Returns a figure with four panels.

    Args:
        forward, training: From an implementation's name to its rows, the smallest case first.
        axis: The `Axis`.
    """
    from matplotlib import ticker

    pyplot = import_pyplot()
    figure, panels = pyplot.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    _growth(panels[0], "forward, seconds", forward, axis)
    _growth(panels[1], "training step, seconds", training, axis)
    _memory(panels[2], "training, MB at the peak", training, axis)
    _plot(panels[3], "seconds to the first training step", training, axis, "first", 1.0)
    cases = [row["case"] for row in max(training.values(), key=len)]
    for panel in panels:
        panel.set(xscale="log", yscale="log", xlabel=axis.name)
        panel.set_xticks([axis.value(case) for case in cases], map(axis.label, cases))
        panel.minorticks_off()
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    return figure


def _plot(panel, title, rows, axis, key, scale):
    panel.set_title(title, fontsize=10)
    for name, found in rows.items():
        values = [scale * row[key] for row in found]
        panel.plot([axis.value(row["case"]) for row in found], values, "o-", label=name)


def _growth(panel, title, rows, axis):
    """Seconds of a step; in dashes, from the first point on, what the operations predict."""
    _plot(panel, f"{title} (dashed: predicted)", rows, axis, "step", 1.0)
    work = title.partition(",")[0]
    for line, found in zip(panel.get_lines(), rows.values(), strict=True):
        unit = found[0]["step"] / predicted(work, found[0]["case"])
        values = [unit * predicted(work, row["case"]) for row in found]
        panel.plot(line.get_xdata(), values, "--", color=line.get_color(), alpha=0.6)


def _memory(panel, title, rows, axis):
    _plot(panel, title, rows, axis, "peak beyond imports", 1e-6)
    cases = [row["case"] for row in max(rows.values(), key=len)]
    values = [1e-6 * case.training_bytes() for case in cases]
    label = "weights, gradients, momentum, saved activations"
    panel.plot([axis.value(case) for case in cases], values, "k--", alpha=0.6, label=label)


def _parsed(figures, axis):
    """From an implementation's name to its rows, the smallest case first."""
    parsed = {}
    for name, found in figures.items():
        rows = [
            {**row, "case": Case(tuple(row["case"][0]), *row["case"][1:])} for row in found.values()
        ]
        if rows:
            parsed[name] = sorted(rows, key=lambda row: axis.value(row["case"]))
    return parsed


def main(file):
    figures = json.loads(Path(file).read_text())
    for name in AXES:
        works = [f"{work} by {name}" for work in ("forward", "training step")]
        if absent := [work for work in works if work not in figures]:
            suite = "python -m pytest benchmarks/suites/test_sizes.py --full"
            sys.exit(f"{file} has no {absent}: run `{suite}`")
        axis = SIZES[name]
        figure = draw(*(_parsed(figures[work], axis) for work in works), axis)
        save_picture(figure, FOLDER / f"sizes-{name}.png", dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:] or [FILE])
