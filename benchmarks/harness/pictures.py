"""Pictures: where they lie, how they are written, and bars with ranges."""

import statistics
from pathlib import Path

from benchmarks.harness.tables import is_own, number
from keras_bit.core.files import atomic_write

FOLDER = Path(__file__).parent.parent / "results" / "pictures"
OWN_COLOR, PEER_COLOR = "tab:orange", "lightgray"


def import_pyplot():
    """Returns matplotlib's `pyplot`, which draws without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_picture(figure, path, dpi=110):
    """Writes a figure as a PNG file; a file at `path` is replaced when the new one is whole."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def draw_rows(rows, title, path, columns=2):
    """Writes a picture with a panel for each `Row` as a PNG file."""
    pyplot = import_pyplot()
    lines = -(-len(rows) // columns)
    counts = [len(row.values) for row in rows]
    most = [max(counts[line * columns :][:columns]) for line in range(lines)]
    heights = [0.9 + 0.28 * count for count in most]
    figure, panels = pyplot.subplots(
        *(lines, columns),
        figsize=(5.5 * columns, 0.4 + sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(title, fontsize=11)
    for place, (panel, row) in enumerate(zip(panels.flat, rows, strict=False)):
        draw_bars(panel, row, most[place // columns])
    for panel in panels.flat[len(rows) :]:
        panel.set_axis_off()
    save_picture(figure, path)
    pyplot.close(figure)


def draw_bars(panel, row, most):
    """The medians of a row as bars, the best on top, with the range of each; room for `most`."""
    medians = {name: statistics.median(values) for name, values in row.values.items()}
    names = sorted(medians, key=medians.get, reverse=not row.more_is_better)
    middles = [medians[name] for name in names]
    below = [medians[name] - min(row.values[name]) for name in names]
    above = [max(row.values[name]) - medians[name] for name in names]
    colors = [OWN_COLOR if is_own(name) else PEER_COLOR for name in names]
    panel.barh(names, middles, color=colors, xerr=(below, above), ecolor="black", capsize=2)
    for place, name in enumerate(names):
        panel.text(0.01 * max(middles), place, number(medians[name]), va="center", fontsize=7)
    better = "more" if row.more_is_better else "less"
    panel.set_title(f"{row.title}\n{row.unit}, {better} is better", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.set_ylim(len(names) - most - 0.6, len(names) - 0.4)
