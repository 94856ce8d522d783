"""The report of a run, or of an evaluation: its pictures, and a page with all of them."""

import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.evaluation.class_maps import draw_mistake_maps
from keras_bit.evaluation.evaluation import Evaluation, describe_classes
from keras_bit.evaluation.notes import headline, notes
from keras_bit.evaluation.page import (
    Picture,
    heading,
    illustration,
    paragraph,
    preformatted,
    table,
    write_page,
)
from keras_bit.evaluation.pictures import (
    draw_class_scores,
    draw_confusion,
    draw_curves,
    draw_mistakes,
    draw_reliability,
    draw_schedule,
    draw_training_images,
)
from keras_bit.evaluation.scores import with_intervals
from keras_bit.hyperrule.rule import HyperRule

PAGE_FILE = "report.html"
PICTURES_FOLDER = "report"
SCHEDULE, CURVES, TRAINING_IMAGES = "learning_rate.png", "curves.png", "training_images.png"
CONFUSION, CLASSES = "confusion_matrix.png", "classes.png"
RELIABILITY, MISTAKES, MAPS = "reliability.png", "mistakes.png", "class_maps.png"
# All that there can be: either the confusion matrix or, with several labels, the classes.
PICTURE_FILES = (
    SCHEDULE,
    CURVES,
    TRAINING_IMAGES,
    CONFUSION,
    CLASSES,
    RELIABILITY,
    MISTAKES,
    MAPS,
)
SHOWN_MISTAKES = 12
LISTED_MISTAKES = 200
_RELIABILITY_TEXT = (
    "How often predictions come true, by their probability. Where bars end below the dashed line, "
    "the model is too sure; above it, not sure enough. Below: how many there are."
)
_MAPS_TEXT = (
    "Class activation maps, {} x {} positions over each image. The mean of a map is the logit of "
    "its class, so that colors show where in the image it comes from."
)


def write_report(
    folder: str | os.PathLike,
    *,
    text: str,
    rule: HyperRule,
    history: Mapping[str, Sequence[float]],
    metrics: Mapping[str, Any],
    evaluation: Evaluation,
    training_examples: tuple[np.ndarray, np.ndarray],
    mistaken_images: np.ndarray | Sequence[np.ndarray],
    mistake_maps: np.ndarray | None = None,
    train_counts: Sequence[int] | None = None,
) -> None:
    """Writes the pictures of a run to `folder/report` and all of them to `folder/report.html`.

    Args:
        folder: The folder of the run.
        text: Lines that are shown as they are, such as the plan.
        rule: The `keras_bit.HyperRule` of the run.
        history: Lists with one value for each epoch, as in `FineTuneResult.history`.
        metrics: Names and values, shown as a table.
        evaluation: The `keras_bit.Evaluation` on the validation images.
        training_examples: Images as the model sees them, floats in [0, 1] or uint8, and their
            labels, one-hot or mixed. The first 16 are drawn.
        mistaken_images: The images of `evaluation.mistakes(12)`, in their order.
        mistake_maps: Their class activation maps, `(n, rows, columns, classes)`.
        train_counts: Number of training images of each class, by which the page tells that
            classes are unequal.
    """
    folder = pathlib.Path(folder)
    pictures = folder / PICTURES_FOLDER
    pictures.mkdir(exist_ok=True)
    draw_schedule(pictures / SCHEDULE, rule)
    draw_curves(pictures / CURVES, history)
    draw_training_images(pictures / TRAINING_IMAGES, *training_examples, evaluation.label_names)
    mixed = "With MixUp, training values are those of mixed images. " if rule.mixup_alpha else ""
    run = (
        (SCHEDULE, "Learning rate", "Over the optimizer updates; dotted: the rule's boundaries."),
        (CURVES, "Training curves", f"{mixed}The ring is the best value on validation."),
        (TRAINING_IMAGES, "Training images", "Of the first batches: cropped, flipped and mixed."),
    )
    parts = (
        *_results(metrics, evaluation, train_counts),
        preformatted(text),
        *(illustration(Picture(pictures / name, *texts)) for name, *texts in run),
        *_evaluated(pictures, evaluation, mistaken_images, "validation images", mistake_maps),
    )
    write_page(folder / PAGE_FILE, f"Fine-tuning: {headline(evaluation)} on validation", parts)


def write_evaluation_page(
    path: str | os.PathLike,
    evaluation: Evaluation,
    metrics: Mapping[str, Any],
    mistaken_images: np.ndarray | Sequence[np.ndarray],
    mistake_maps: np.ndarray | None = None,
) -> None:
    """Writes a page with the evaluation of a model, its pictures inside.

    `metrics` are shown as a table; `mistaken_images` and `mistake_maps` as for `write_report`.
    """
    with tempfile.TemporaryDirectory() as pictures:
        parts = (
            *_results(metrics, evaluation, None),
            *_evaluated(
                pathlib.Path(pictures), evaluation, mistaken_images, "images", mistake_maps
            ),
        )
        count = f"{len(evaluation.labels):,} images"
        write_page(path, f"Evaluation: {headline(evaluation)} on {count}", parts)


def _results(metrics, evaluation, train_counts):
    """The table of metrics, and what one has to know to read it."""
    return (table(_facts(metrics)), *map(paragraph, notes(evaluation, train_counts)))


def _facts(metrics):
    """Rows of names and values; an interval stands beside its value."""
    for name, value, interval in with_intervals(metrics):
        if value is False or value is None:
            continue
        shown = _fact(value)
        if interval is not None:
            low, high = map(_fact, interval)
            shown = f"{shown} (95% interval: {low} to {high})"
        yield name.replace("_", " "), shown


def _fact(value):
    if value is True:
        return "yes"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _evaluated(
    folder: pathlib.Path,
    evaluation: Evaluation,
    mistaken_images: np.ndarray | Sequence[np.ndarray],
    images: str,
    mistake_maps: np.ndarray | None = None,
) -> Iterable[str]:
    """Yields the parts of a page on an evaluation, whose pictures it draws into `folder`."""
    if evaluation.multi_label:
        draw_class_scores(folder / CLASSES, evaluation)
        text = f"Of the {images}; behind each class the number that have it."
        yield illustration(Picture(folder / CLASSES, "Classes", text))
    else:
        draw_confusion(folder / CONFUSION, evaluation)
        text = f"Of the {images}: true class in rows, prediction in columns."
        yield illustration(Picture(folder / CONFUSION, "Confusion matrix", text))
    draw_reliability(folder / RELIABILITY, evaluation.calibration)
    yield illustration(Picture(folder / RELIABILITY, "Calibration", _RELIABILITY_TEXT))
    mistakes = evaluation.mistakes(SHOWN_MISTAKES)
    draw_mistakes(folder / MISTAKES, mistaken_images, mistakes, evaluation.label_names)
    several = evaluation.multi_label
    text = "a label that is wrong or missed" if several else "the prediction"
    text = f"Of the {images}, with the probability of {text}."
    yield illustration(Picture(folder / MISTAKES, "Most confident mistakes", text))
    if mistake_maps is not None and mistakes:
        pairs = mistaken_images, mistake_maps
        draw_mistake_maps(folder / MAPS, *pairs, mistakes, evaluation.label_names)
        text = _MAPS_TEXT.format(*mistake_maps.shape[1:3])
        yield illustration(Picture(folder / MAPS, "Where the mistakes come from", text))
    yield _mistakes_table(evaluation)
    yield heading("Class by class")
    yield paragraph("The worst classes come first.")
    yield _classes_table(evaluation, images)


def _mistakes_table(evaluation):
    """The mistakes under their picture, where there are any."""
    mistakes, names = evaluation.mistakes(), evaluation.label_names
    if not mistakes:
        return ""
    rows = [
        (
            mistake.name,
            describe_classes(mistake.true, names),
            describe_classes(mistake.predicted, names),
            *((names[mistake.label],) if evaluation.multi_label else ()),
            f"{mistake.probability:.2f}",
        )
        for mistake in mistakes[:LISTED_MISTAKES]
    ]
    one = ("file", "true class", "prediction", "probability")
    several = ("file", "true classes", "predictions", "wrong or missed", "probability")
    columns = several if evaluation.multi_label else one
    more = len(mistakes) - len(rows)
    return table(rows, columns) + (paragraph(f"And {more:,} more.") if more else "")


def _classes_table(evaluation, images):
    common = ("class", images, "precision", "recall", "F1")
    one, several = ("most often taken for",), ("average precision", "threshold")
    columns = (*common, *(several if evaluation.multi_label else one))
    rows = []
    for each in evaluation.worst_classes():
        scores = [f"{value:.3f}" for value in (each.precision, each.recall, each.f1)]
        own = [each.confused_with]
        if evaluation.multi_label:
            own = [f"{value:.3f}" for value in (each.average_precision, each.threshold)]
        rows.append((each.name, f"{each.support:,}", *scores, *own))
    return table(rows, columns)
