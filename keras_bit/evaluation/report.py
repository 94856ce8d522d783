"""The report of a run: its pictures, and a page with all of them."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.evaluation.evaluation import Evaluation
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
    draw_confusion,
    draw_curves,
    draw_mistakes,
    draw_schedule,
    draw_training_images,
)
from keras_bit.hyperrule.rule import HyperRule

PAGE_FILE = "report.html"
PICTURES_FOLDER = "report"
PICTURE_FILES = (
    "learning_rate.png",
    "curves.png",
    "training_images.png",
    "confusion_matrix.png",
    "mistakes.png",
)
SHOWN_MISTAKES = 12
LISTED_MISTAKES = 200


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
) -> None:
    """Writes the pictures of a run to `folder/report` and all of them to `folder/report.html`.

    `text` is shown as it is, `metrics` as a table. `history` and `training_examples` are as for
    `draw_curves` and `draw_training_images`; `mistaken_images` those of
    `evaluation.mistakes(SHOWN_MISTAKES)`, in their order.
    """
    folder = pathlib.Path(folder)
    mixed = "With MixUp, training values are those of mixed images. " if rule.mixup_alpha else ""
    described = (
        ("Learning rate", "Over the optimizer updates; dotted lines are the rule's boundaries."),
        ("Loss and accuracy", f"{mixed}The ring is the best value on validation."),
        ("Training images", "A row from each of the first batches, cropped, flipped and mixed."),
        ("Confusion matrix", "Validation images: true class in rows, prediction in columns."),
        ("Most confident mistakes", "Validation images, with the probability of the prediction."),
    )
    pictures = [
        Picture(folder / PICTURES_FOLDER / name, *texts)
        for name, texts in zip(PICTURE_FILES, described, strict=True)
    ]
    (folder / PICTURES_FOLDER).mkdir(exist_ok=True)
    schedule, curves, training_images, confusion, wrong = (picture.path for picture in pictures)
    draw_schedule(schedule, rule)
    draw_curves(curves, history)
    draw_training_images(training_images, *training_examples, evaluation.label_names)
    draw_confusion(confusion, evaluation)
    mistakes = evaluation.mistakes(SHOWN_MISTAKES)
    draw_mistakes(wrong, mistaken_images, mistakes, evaluation.label_names)
    title = f"Fine-tuning: {evaluation.metrics['accuracy']:.2%} right on validation"
    facts = [
        (name.replace("_", " "), _fact(value))
        for name, value in metrics.items()
        if value is not False and value is not None
    ]
    parts = (
        table(facts),
        preformatted(text),
        *map(illustration, pictures),
        _mistakes_table(evaluation),
        heading("Class by class"),
        paragraph("The worst classes come first."),
        table(
            evaluation.class_rows(),
            ("class", "validation images", "right", "most often taken for"),
        ),
    )
    write_page(folder / PAGE_FILE, title, parts)


def _fact(value):
    if value is True:
        return "yes"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _mistakes_table(evaluation):
    """The mistakes under their picture, where there are any."""
    mistakes, names = evaluation.mistakes(), evaluation.label_names
    if not mistakes:
        return ""
    rows = [
        (mistake.name, names[mistake.true], names[mistake.predicted], f"{mistake.probability:.2f}")
        for mistake in mistakes[:LISTED_MISTAKES]
    ]
    listed = table(rows, ("file", "true class", "prediction", "probability"))
    more = len(mistakes) - len(rows)
    return listed + (paragraph(f"And {more:,} more.") if more else "")
