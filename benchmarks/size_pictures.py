"""Draws the figures that `pytest benchmarks/test_sizes.py --full` keeps, and what theory predicts.

python -m benchmarks.size_pictures [FILE]
"""

import json
import sys
from pathlib import Path

import matplotlib

from benchmarks.cases import Case
from benchmarks.test_sizes import AXES, FILE, predicted

FOLDER = Path(__file__).parent / "pictures"
SIZES = {
    "image size": ("pixels of an image", lambda case: case.edge**2),
    "batch": ("images in a batch", lambda case: case.batch_size),
    "network": (
        "operations for an image in the forward pass",
        lambda case: case.operations("forward"),
    ),
}


def draw(axis_name, figures):
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    forward, training = (
        _parsed(figures.get(f"{work} by {axis_name}", {})) for work in ("forward", "training step")
    )
    label, size = SIZES[axis_name]
    _growth(panels[0], "forward", forward, size)
    _growth(panels[1], "training step", training, size)
    _memory(panels[2], training, size)
    _plot(panels[3], "seconds to the first training step", training, size, "first", 1.0)
    for panel in panels:
        panel.set(xscale="log", yscale="log", xlabel=label)
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize=8)
    return figure


def _parsed(rows):
    return {
        name: [{**row, "case": Case(tuple(row["case"][0]), *row["case"][1:])} for row in found]
        for name, found in rows.items()
    }


def _plot(panel, title, rows, size, key, scale):
    panel.set_title(title, fontsize=10)
    for name, found in rows.items():
        values = [scale * row[key] for row in found]
        panel.plot([size(row["case"]) for row in found], values, "o-", label=name)


def _growth(panel, work, rows, size):
    """Seconds of a step; in dashes, from the first point on, what the operations predict."""
    _plot(panel, f"{work}, seconds", rows, size, "step", 1.0)
    for line, found in zip(panel.get_lines(), rows.values(), strict=True):
        unit = found[0]["step"] / predicted(work, found[0]["case"])
        values = [unit * predicted(work, row["case"]) for row in found]
        panel.plot(line.get_xdata(), values, "--", color=line.get_color(), alpha=0.6)


def _memory(panel, rows, size):
    _plot(panel, "training, MB at the peak", rows, size, "peak beyond imports", 1e-6)
    cases = [row["case"] for row in max(rows.values(), key=len, default=())]
    values = [1e-6 * case.training_bytes() for case in cases]
    panel.plot([size(case) for case in cases], values, "k--", alpha=0.6, label="predicted")


def main(file):
    matplotlib.use("Agg")
    figures = json.loads(Path(file).read_text())
    for axis_name in AXES:
        picture = FOLDER / f"sizes-{axis_name.replace(' ', '-')}.png"
        draw(axis_name, figures).savefig(picture, dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:] or [FILE])
