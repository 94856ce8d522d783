"""Pictures of a run: the schedule, training curves, images, confusion matrix and mistakes.

Each `draw_*` function writes one PNG. Matplotlib is used through its object-oriented interface, so
no figure, backend or style of the caller is touched.
"""

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.core.files import atomic_write
from keras_bit.evaluation.calibration import Calibration
from keras_bit.evaluation.evaluation import Evaluation, Mistake, describe_classes
from keras_bit.hyperrule.rule import HyperRule

DPI = 110
# This pair is told apart with every common color blindness (Okabe and Ito).
TRAIN_COLOR = "#0072b2"
TEST_COLOR = "#d55e00"
GRID_COLUMNS = 4
GRID_IMAGES = 16
SMALLEST_SHARE = 0.005
MOST_TICKS = 100  # more class names than this on one axis cannot be read
MOST_BARS = 60


def describe_label(label: Any, label_names: Sequence[str]) -> str:
    """The classes in a one-hot or mixed label, largest share first, as text with one class a line.

    Shares that two decimals would show as zero are skipped.

    Example:

    >>> describe_label([0.25, 0.0, 0.75], ["cat", "dog", "fox"])
    '0.75 fox\\n0.25 cat'
    >>> describe_label([0.0, 1.0, 0.0], ["cat", "dog", "fox"])
    'dog'
    """
    label = np.asarray(label)
    parts = [i for i in np.argsort(-label, kind="stable") if label[i] >= SMALLEST_SHARE]
    if len(parts) == 1:
        return shorten(label_names[parts[0]])
    return "\n".join(f"{label[i]:.2f} {shorten(label_names[i], 20)}" for i in parts)


def shorten(name: str, length: int = 24) -> str:
    """`name` in at most `length` characters that can be drawn, cut in the middle if longer."""
    name = printable(name)
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def printable(name: str) -> str:
    """`name` with backslashes for bytes in no known encoding, which no file or font takes.

    Folders and files may be called by such bytes; Python then has lone surrogates in their names.

    >>> printable("caf\\udce9")
    'caf\\\\udce9'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def schedule_points(rule: HyperRule, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps, about so many, and their rates, exact on both sides of every boundary."""
    spaced = np.linspace(0, rule.schedule_length - 1, points).astype(int)
    edges = [edge + side for edge in (rule.warmup_steps, *rule.boundaries) for side in (0, 1)]
    steps = np.unique(np.concatenate([spaced, np.asarray(edges, dtype=int)]))
    steps = steps[steps < rule.schedule_length]
    return steps, keras.ops.convert_to_numpy(rule.schedule()(steps))


def draw_schedule(path: str | os.PathLike, rule: HyperRule) -> None:
    """Writes the learning rate over the steps of `rule` (logarithmic axis) to the PNG `path`."""
    steps, rates = schedule_points(rule)
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    axes.stairs(rates, [*steps, rule.schedule_length], baseline=None, color=TRAIN_COLOR, lw=2)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylim(rates[-1] / 2, rates.max() * 2)
    axes.set_xlim(0, rule.schedule_length)
    for boundary in rule.boundaries:
        axes.axvline(boundary, color="0.6", linewidth=1, linestyle=":")
    edges = [rule.warmup_steps, *rule.boundaries, rule.schedule_length]
    if rule.warmup_steps:
        label = f"warm-up: {rule.warmup_steps:,} updates"
        axes.axvspan(0, rule.warmup_steps, facecolor="0.88", edgecolor="0.6", zorder=0, label=label)
        axes.legend(loc="lower left", frameon=False)
    for start, end in itertools.pairwise(edges):
        if end > start:
            rate = rates[np.searchsorted(steps, end, side="left") - 1]
            axes.annotate(
                f"{rate:.3g}",
                ((start + end) / 2, rate),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
            )
    ticks = sorted({0, *edges} if rule.warmup_steps == 0 else set(edges))
    axes.set_xticks(ticks, [short_number(tick) for tick in ticks])
    axes.set_xlabel("optimizer updates")
    axes.set_ylabel("learning rate")
    axes.set_title(f"Learning rate at batch size {rule.batch_size:,}")
    save_figure(figure, path)


def draw_curves(path: str | os.PathLike, history: Mapping[str, Sequence[float]]) -> None:
    """Writes loss and accuracy over the updates, training and validation, to the PNG `path`.

    `history` has lists with one value an epoch: `loss`, `val_loss`, the same of one or more
    metrics between 0 and 1, of which the first is drawn, such as `accuracy` and `val_accuracy`,
    and `updates`, the optimizer updates done by then.
    """
    updates = history["updates"]
    figure = new_figure(10, 4.2)
    names = ["loss", *(name for name in history if name != "loss" and f"val_{name}" in history)]
    for axes, metric in zip(figure.subplots(1, 2), names[:2], strict=True):
        values = np.asarray(history[f"val_{metric}"], dtype=float)
        axes.plot(updates, history[metric], "-o", color=TRAIN_COLOR, ms=4, label="training")
        axes.plot(updates, values, "-o", color=TEST_COLOR, ms=4, label="validation")
        title = metric.replace("_", " ")
        if np.isfinite(values).any():
            best = int(np.nanargmin(values) if metric == "loss" else np.nanargmax(values))
            axes.plot(updates[best], values[best], "o", ms=11, mfc="none", color=TEST_COLOR)
            title = f"{title}: {values[best]:.4g} at best on validation, update {updates[best]:,}"
        else:
            title = f"{title}: no finite value on validation"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("optimizer updates")
        axes.set_xlim(0, updates[-1] * 1.04)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    figure.axes[1].set_ylim(-0.03, 1.03)
    save_figure(figure, path)


def draw_training_images(
    path: str | os.PathLike, images: np.ndarray, labels: np.ndarray, label_names: Sequence[str]
) -> None:
    """Writes a grid of the first 16 images, as the model sees them, to the PNG `path`.

    They are floats in [0, 1] or uint8; their labels, one-hot or mixed, are the titles.
    """
    titles = [describe_label(label, label_names) for label in labels[:GRID_IMAGES]]
    _draw_grid(path, images[:GRID_IMAGES], titles, "Training images as the model sees them")


def draw_mistakes(
    path: str | os.PathLike,
    images: Sequence[np.ndarray] | np.ndarray,
    mistakes: Sequence[Mistake],
    label_names: Sequence[str],
) -> None:
    """Writes the most confident mistakes with classes and file names to the PNG `path`.

    `images` are those of `mistakes`, in their order; where there are none the picture says so.
    """
    if not mistakes:
        figure = new_figure(GRID_COLUMNS * 2, 1.2)
        message = "No mistakes: every image is right."
        figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=13)
        save_figure(figure, path)
        return
    titles = [_describe_mistake(mistake, label_names) for mistake in mistakes]
    _draw_grid(path, images, titles, "The most confident mistakes")


def _describe_mistake(mistake, label_names):
    """Three lines: the wrong label with its probability, the true classes, and the file."""
    wrong = shorten(label_names[mistake.label], 20)
    if isinstance(mistake.true, tuple):
        wrong += ", missed" if mistake.label in mistake.true else ", wrong"
    true = shorten(describe_classes(mistake.true, label_names), 20)
    file = shorten(os.path.basename(mistake.name) or mistake.name)
    return f"{mistake.probability:.2f} {wrong}\ntrue: {true}\n{file}"


def draw_confusion(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Writes the confusion matrix to the PNG `path`.

    Colors show the share of the true class, numbers count images. The picture grows with the
    classes, so that up to 100 of them stay readable; of more classes every k-th one is named and
    there are no numbers.
    """
    from matplotlib import cm

    counts, label_names = evaluation.confusion, evaluation.label_names
    classes = len(label_names)
    edge = float(np.clip(classes * 0.3, max(3.0, min(classes * 0.8, 7.0)), 16.0))
    cell = edge / classes * 72  # in points, as font sizes are
    every = -(-classes // MOST_TICKS)
    font = float(np.clip(cell * every * 0.62, 5, 10))
    names = [shorten(name) for name in label_names[::every]]
    longest = max(len(name) for name in names) * font * 0.62
    figure = new_figure(edge + longest / 72 + 1.8, edge + longest / 72 + 1.0)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap=cm.Blues, vmin=0, vmax=1, interpolation="nearest")
    for row, column in np.argwhere(counts > 0) if every == 1 else ():
        text = str(counts[row, column])
        color = "white" if shares[row, column] > 0.55 else "black"
        size = min(11, cell * min(0.5, 1.4 / len(text)))
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    ticks = np.arange(0, classes, every)
    flat = longest < cell
    axes.set_xticks(ticks, names, rotation=0 if flat else 90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right, total = np.trace(counts), counts.sum()
    axes.set_title(f"{right:,} of {total:,} right ({right / total:.2%})")
    figure.colorbar(drawn, ax=axes, label="share of the true class", fraction=0.04, pad=0.02)
    save_figure(figure, path)


def draw_class_scores(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Writes the F1 and the average precision of each class to the PNG `path`, the worst first.

    Of images with several labels each. Of more than 60 classes these are the worst; classes
    without images are omitted.
    """
    present = [scores for scores in evaluation.worst_classes() if scores.support]
    scores = present[:MOST_BARS]
    rows = np.arange(len(scores))
    font = 9 if len(scores) <= 30 else 7
    figure = new_figure(8, max(2.2, 1.1 + len(scores) * (0.26 if font == 9 else 0.19)))
    axes = figure.add_subplot()
    f1, precision = (
        [getattr(each, name) for each in scores] for name in ("f1", "average_precision")
    )
    axes.hlines(rows, 0, 1, color="0.92", linewidth=1, zorder=0)
    axes.plot(f1, rows, "o", color=TRAIN_COLOR, label="F1 at the threshold")
    axes.plot(precision, rows, "D", color=TEST_COLOR, ms=5, mfc="none", label="average precision")
    names = [f"{shorten(each.name)} ({each.support:,})" for each in scores]
    axes.set_yticks(rows, names, fontsize=font, parse_math=False)
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    more = len(present) - len(scores)
    axes.set_title(f"The worst {len(scores):,} classes" if more else "Class by class")
    axes.set_ylabel("class (images)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def draw_reliability(path: str | os.PathLike, calibration: Calibration) -> None:
    """Writes the reliability diagram of a calibration to the PNG `path`.

    On the diagonal, probabilities mean what they say; below it, the model is too sure.
    """
    figure = new_figure(5.2, 5.8)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    bins = len(calibration.counts)
    filled = calibration.counts > 0
    middles, width = (np.arange(bins)[filled] + 0.5) / bins, 1 / bins
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--")
    axes.bar(middles, accuracy, width * 0.92, color=TRAIN_COLOR, label="came true")
    axes.plot(confidence, accuracy, "o", color=TEST_COLOR, ms=5, label="at the mean probability")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("share that came true")
    axes.set_title(f"Expected calibration error {calibration.error:.3f}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    below.bar(middles, calibration.counts[filled], width * 0.92, color="0.6")
    below.set_xlim(0, 1)
    below.set_ylabel("number")
    below.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    below.yaxis.set_major_formatter(lambda value, _: short_number(value))
    below.set_xlabel("probability")
    save_figure(figure, path)


def short_number(value: float) -> str:
    """`value` with thousands separators, or with k or M where that would be long.

    >>> short_number(12_000), short_number(123_400), short_number(2_000_000)
    ('12,000', '123.4k', '2M')
    """
    if value < 100_000:
        return f"{value:,.0f}"
    return f"{value / 1e3:.4g}k" if value < 1e6 else f"{value / 1e6:.4g}M"


def _draw_grid(path, images, titles, heading):
    columns = min(GRID_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(GRID_COLUMNS * 2, rows * 2.4 + 0.5)
    figure.suptitle(heading)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = figure.add_subplot(
            rows, GRID_COLUMNS, index // columns * GRID_COLUMNS + index % columns + 1
        )
        axes.imshow(
            image if image.dtype == np.uint8 else np.clip(np.asarray(image, np.float32), 0, 1)
        )
        axes.set_title(title, fontsize=9, parse_math=False)
        axes.set_axis_off()
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Any:
    """Returns a figure of `width` x `height` inches, on its own Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Writes a figure to the PNG `path`."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # Signs that matplotlib's font lacks are drawn as boxes; it would warn of each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from ")
        figure.savefig(temporary, format="png", dpi=DPI)
