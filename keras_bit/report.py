"""Pictures of a run: what was decided, how training went, and where the model errs.

Numbers and drawings are kept apart. The functions that compute (`confusion_counts`,
`confident_mistakes`, `schedule_points`, ...) return values that can be tested or printed; the
`draw_*` functions write one PNG each; `write_report` puts a whole run together. Matplotlib is used
through its object-oriented interface, so no figure, backend or style of the caller is touched.
"""

import base64
import dataclasses
import html
import itertools
import pathlib

import numpy as np

from keras_bit.files import written_whole

PAGE_FILE = "report.html"
PICTURES_FOLDER = "report"
PICTURE_FILES = (
    "learning_rate.png",
    "curves.png",
    "training_images.png",
    "confusion_matrix.png",
    "mistakes.png",
)
DPI = 110
TRAIN_COLOUR = (
    "#0072b2"  # this pair is told apart with every common colour blindness (Okabe and Ito)
)
TEST_COLOUR = "#d55e00"
GRID_COLUMNS = 4
GRID_IMAGES = 16
SMALLEST_SHARE = 0.005
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%;height:auto}pre{overflow-x:auto}table{border-spacing:0}"
    "th{text-align:left}td,th{padding:.1rem 1.5rem .1rem 0;vertical-align:top}"
)
MOST_TICKS = 100  # more class names than this on one axis cannot be read


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One image that the model got wrong: its row, both class ids, and the model's probability."""

    index: int
    true: int
    predicted: int
    probability: float


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of a report: the PNG file, its title and the sentence that explains it."""

    path: pathlib.Path
    title: str
    caption: str


def write_report(
    folder,
    *,
    label_names,
    metrics,
    rule,
    history,
    training_examples,
    counts,
    mistakes,
    mistaken_images,
):
    """Writes the pictures of a run to `folder/report` and all of them to `folder/report.html`.

    Args:
        folder: An existing folder.
        label_names: Sequence of the class names.
        metrics: A dict of names and values, shown as a table.
        rule: The `keras_bit.HyperRule` of the run.
        history: A dict of lists with one value an epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`, and `updates`, the optimizer updates done by then.
        training_examples: Images and labels as for `draw_training_images`.
        counts: The array of `confusion_counts`.
        mistakes: The list of `confident_mistakes`.
        mistaken_images: Their images, in the same order.
    """
    folder = pathlib.Path(folder)
    pictures_folder = folder / PICTURES_FOLDER
    pictures_folder.mkdir(exist_ok=True)
    mixed = "With MixUp, training values are those of mixed images. " if rule.mixup_alpha else ""
    described = (
        ("Learning rate", "Over the optimizer updates; dotted lines are the rule's boundaries."),
        ("Loss and accuracy", f"{mixed}The ring is the best value on validation."),
        ("Training images", "A row from each of the first batches, cropped, flipped and mixed."),
        ("Confusion matrix", "Validation images: true class in rows, prediction in columns."),
        ("Most confident mistakes", "Validation images, with the probability of the prediction."),
    )
    pictures = [
        Picture(pictures_folder / name, *texts)
        for name, texts in zip(PICTURE_FILES, described, strict=True)
    ]
    schedule, curves, training_images, confusion, wrong = (picture.path for picture in pictures)
    draw_schedule(schedule, rule)
    draw_curves(curves, history, history["updates"])
    draw_training_images(training_images, *training_examples, label_names)
    draw_confusion(confusion, counts, label_names)
    draw_mistakes(wrong, mistaken_images, mistakes, label_names)
    facts = {name.replace("_", " "): _fact(value) for name, value in metrics.items()}
    rows = class_rows(counts, label_names)
    title = f"Fine-tuning: {metrics['accuracy']:.2%} right on validation"
    write_html(folder / PAGE_FILE, title, facts, str(rule), pictures, rows)


def _fact(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def softmax(logits):
    """Probabilities of `logits` (n, classes), computed in float64 so that no row overflows."""
    logits = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def confusion_counts(true, predicted, num_classes):
    """How often each class was taken for each other one.

    Args:
        true: Class ids, integers of shape (n,).
        predicted: Class ids, integers of shape (n,).
        num_classes: Number of classes; classes that do not occur keep their row and column.

    Returns:
        An integer array (num_classes, num_classes): row = true class, column = prediction.

    Example:

    >>> confusion_counts([0, 0, 1], [0, 1, 1], 2)
    array([[1, 1],
           [0, 1]])
    """
    from sklearn import metrics

    return metrics.confusion_matrix(true, predicted, labels=np.arange(num_classes))


def confident_mistakes(probabilities, true, limit=12):
    """The images that the model got wrong with the highest probability, most confident first.

    Args:
        probabilities: Floats of shape (n, classes), each row a distribution.
        true: Class ids, integers of shape (n,).
        limit: How many mistakes to return at most.

    Returns:
        A list of `Mistake`; empty where every image is right.
    """
    probabilities = np.asarray(probabilities)
    true = np.asarray(true)
    predicted = probabilities.argmax(axis=-1)
    confidence = probabilities.max(axis=-1)
    wrong = np.flatnonzero(predicted != true)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [Mistake(int(i), int(true[i]), int(predicted[i]), float(confidence[i])) for i in order]


def class_rows(counts, label_names):
    """One row per class for a table, the worst classes first.

    Args:
        counts: The array of `confusion_counts`.
        label_names: Sequence of the class names.

    Returns:
        A list of tuples: name, number of images, number of right ones, and the class it is most
        often taken for ("" where there is none). Classes without images come last.
    """
    rows = []
    for index, name in enumerate(label_names):
        wrong = counts[index].copy()
        wrong[index] = 0
        confused = label_names[int(wrong.argmax())] if wrong.any() else ""
        rows.append((name, int(counts[index].sum()), int(counts[index, index]), confused))
    return sorted(rows, key=lambda row: row[2] / row[1] if row[1] else 2.0)


def describe_label(label, label_names):
    """The classes in a one-hot or mixed label, largest share first, as text with one class a line.

    Shares that two decimals would show as zero are left out.

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


def shorten(name, length=24):
    """`name` in at most `length` characters, cut in the middle where it is longer."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def schedule_points(rule, points=1000):
    """The learning rate of `rule` over its steps, exact on both sides of every boundary.

    Args:
        rule: A `keras_bit.HyperRule`.
        points: About how many steps to sample.

    Returns:
        Two arrays: the steps (integers from 0 to the last step) and the rates (float32).
    """
    import keras

    spaced = np.linspace(0, rule.schedule_length - 1, points).astype(int)
    edges = [edge + side for edge in (rule.warmup_steps, *rule.boundaries) for side in (0, 1)]
    steps = np.unique(np.concatenate([spaced, np.asarray(edges, dtype=int)]))
    steps = steps[steps < rule.schedule_length]
    return steps, keras.ops.convert_to_numpy(rule.schedule()(steps))


def draw_schedule(path, rule):
    """Writes the learning rate over the steps of `rule` (logarithmic axis) to the PNG `path`."""
    steps, rates = schedule_points(rule)
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    axes.stairs(rates, [*steps, rule.schedule_length], baseline=None, color=TRAIN_COLOUR, lw=2)
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
    axes.set_xticks(ticks, [_short_number(tick) for tick in ticks])
    axes.set_xlabel("optimizer updates")
    axes.set_ylabel("learning rate")
    axes.set_title(f"Learning rate at batch size {rule.batch_size:,}")
    _save(figure, path)


def draw_curves(path, history, updates):
    """Writes loss and accuracy over the updates, training and validation, to the PNG `path`.

    Args:
        path: The PNG file.
        history: A dict of lists `loss`, `accuracy`, `val_loss`, `val_accuracy`: a value an epoch.
        updates: The optimizer updates done at the end of each epoch, integers.
    """
    figure = _figure(10, 4.2)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        values = np.asarray(history[f"val_{metric}"], dtype=float)
        axes.plot(updates, history[metric], "-o", color=TRAIN_COLOUR, ms=4, label="training")
        axes.plot(updates, values, "-o", color=TEST_COLOUR, ms=4, label="validation")
        title = f"{metric}: no finite value on validation"
        if np.isfinite(values).any():
            best = np.nanargmin(values) if metric == "loss" else np.nanargmax(values)
            axes.plot(updates[best], values[best], "o", ms=11, mfc="none", color=TEST_COLOUR)
            title = f"{metric}: {values[best]:.4g} at best on validation, update {updates[best]:,}"
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("optimizer updates")
        axes.set_xlim(0, updates[-1] * 1.04)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: _short_number(value))
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    figure.axes[1].set_ylim(-0.03, 1.03)
    _save(figure, path)


def draw_training_images(path, images, labels, label_names):
    """Writes a grid of images as the model sees them, titled with their labels, to `path`.

    Args:
        path: The PNG file.
        images: The first 16 are drawn: (n, height, width, 3), float in [0, 1] or uint8.
        labels: (n, classes), one-hot or mixed.
        label_names: Sequence of the class names.
    """
    titles = [describe_label(label, label_names) for label in labels[:GRID_IMAGES]]
    _draw_grid(path, images[:GRID_IMAGES], titles, "Training images as the model sees them")


def draw_mistakes(path, images, mistakes, label_names):
    """Writes the most confident mistakes with true and predicted class to the PNG `path`.

    Args:
        path: The PNG file.
        images: The images of `mistakes`, in their order: (n, height, width, 3), float in [0, 1]
            or uint8.
        mistakes: The list of `confident_mistakes`; where it is empty the picture says so.
        label_names: Sequence of the class names.
    """
    if not mistakes:
        figure = _figure(GRID_COLUMNS * 2, 1.2)
        figure.text(
            0.5,
            0.5,
            "No mistakes: every validation image is right.",
            ha="center",
            va="center",
            fontsize=13,
        )
        _save(figure, path)
        return
    titles = [
        f"{mistake.probability:.2f} {shorten(label_names[mistake.predicted], 20)}\n"
        f"true: {shorten(label_names[mistake.true], 20)}"
        for mistake in mistakes
    ]
    _draw_grid(path, images, titles, "The most confident mistakes")


def draw_confusion(path, counts, label_names):
    """Writes the confusion matrix to the PNG `path`.

    Colours show the share of the true class, numbers count images. The picture grows with the
    classes, so that up to 100 of them stay readable; of more classes every k-th one is named and
    the numbers are left out.

    Args:
        path: The PNG file.
        counts: The array of `confusion_counts`.
        label_names: Sequence of the class names.
    """
    from matplotlib import cm

    classes = len(label_names)
    edge = float(np.clip(classes * 0.3, max(3.0, min(classes * 0.8, 7.0)), 16.0))
    cell = edge / classes * 72  # in points, as font sizes are
    every = -(-classes // MOST_TICKS)
    font = float(np.clip(cell * every * 0.62, 5, 10))
    names = [shorten(name) for name in label_names[::every]]
    longest = max(len(name) for name in names) * font * 0.62
    figure = _figure(edge + longest / 72 + 1.8, edge + longest / 72 + 1.0)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap=cm.Blues, vmin=0, vmax=1, interpolation="nearest")
    for row, column in np.argwhere(counts > 0) if every == 1 else ():
        text = str(counts[row, column])
        colour = "white" if shares[row, column] > 0.55 else "black"
        size = min(11, cell * min(0.5, 1.4 / len(text)))
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    ticks = np.arange(0, classes, every)
    flat = longest < cell
    axes.set_xticks(ticks, names, rotation=0 if flat else 90, fontsize=font, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    total, right = int(counts.sum()), int(np.trace(counts))
    axes.set_title(f"{right:,} of {total:,} right ({right / max(total, 1):.2%})")
    figure.colorbar(drawn, ax=axes, label="share of the true class", fraction=0.04, pad=0.02)
    _save(figure, path)


def write_html(path, title, facts, table, pictures, rows):
    """Writes a page that holds its pictures inside, so that it can be sent as one file.

    Args:
        path: The HTML file.
        title: The page's title.
        facts: A dict of names and values for the table at the top.
        table: The text of the rule.
        pictures: Sequence of `Picture`.
        rows: The rows of `class_rows`.
    """
    sections = "".join(
        f"<h2>{_escape(picture.title)}</h2><p>{_escape(picture.caption)}</p>"
        f'<img alt="{_escape(picture.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode()}">'
        for picture in pictures
    )
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{_escape(title)}</h1>"
        f"<table>{_table_rows(facts.items())}</table><pre>{_escape(table)}</pre>{sections}"
        "<h2>Class by class</h2><p>The worst classes come first.</p><table>"
        "<tr><th>class<th>validation images<th>right<th>most often taken for</tr>"
        f"{_table_rows(rows)}</table></html>\n"
    )
    # A folder's name in no known encoding holds lone surrogates, which UTF-8 cannot.
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _table_rows(rows):
    return "".join(
        "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )


def _short_number(value):
    """`value` with thousands separators, or with k or M where that would be long."""
    if value < 100_000:
        return f"{value:,.0f}"
    return f"{value / 1e3:.4g}k" if value < 1e6 else f"{value / 1e6:.4g}M"


def _escape(value):
    return html.escape(str(value))


def _draw_grid(path, images, titles, heading):
    columns = min(GRID_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = _figure(GRID_COLUMNS * 2, rows * 2.4 + 0.5)
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
    _save(figure, path)


def _figure(width, height):
    """A figure of `width` x `height` inches, on its own Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path):
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
