"""The report of a run: its pictures, and a page with all of them."""

import base64
import html
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_bit.core.files import atomic_write
from keras_bit.evaluation.evaluation import Evaluation
from keras_bit.evaluation.pictures import (
    draw_confusion,
    draw_curves,
    draw_mistakes,
    draw_schedule,
    draw_training_images,
    printable,
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
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%;height:auto}pre{overflow-x:auto}table{border-spacing:0}"
    "th{text-align:left}td,th{padding:.1rem 1.5rem .1rem 0;vertical-align:top}"
)


class Picture(NamedTuple):
    """One picture of a report: the PNG file, its title and the sentence that explains it."""

    path: pathlib.Path
    title: str
    caption: str


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
    page = _page(title, facts, text, pictures, evaluation)
    with atomic_write(folder / PAGE_FILE) as temporary:
        temporary.write_text(printable(page), encoding="utf-8")


def _fact(value):
    if value is True:
        return "yes"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _page(title, facts, text, pictures, evaluation):
    """A page that holds its pictures inside, so that it can be sent as one file."""
    sections = "".join(
        f"<h2>{_escape(picture.title)}</h2><p>{_escape(picture.caption)}</p>"
        f'<img alt="{_escape(picture.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode()}">'
        for picture in pictures
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><h1>{_escape(title)}</h1>"
        f"<table>{_table_rows(facts)}</table><pre>{_escape(text)}</pre>{sections}"
        f"{_mistakes_table(evaluation)}"
        "<h2>Class by class</h2><p>The worst classes come first.</p><table>"
        "<tr><th>class<th>validation images<th>right<th>most often taken for</tr>"
        f"{_table_rows(evaluation.class_rows())}</table></html>\n"
    )


def _mistakes_table(evaluation):
    """The mistakes under their picture, where there are any."""
    mistakes, names = evaluation.mistakes(), evaluation.label_names
    if not mistakes:
        return ""
    rows = [
        (mistake.name, names[mistake.true], names[mistake.predicted], f"{mistake.probability:.2f}")
        for mistake in mistakes[:LISTED_MISTAKES]
    ]
    more = len(mistakes) - len(rows)
    return (
        "<table><tr><th>file<th>true class<th>prediction<th>probability</tr>"
        f"{_table_rows(rows)}</table>{f'<p>And {more:,} more.</p>' if more else ''}"
    )


def _table_rows(rows: Iterable[Iterable[object]]) -> str:
    return "".join(
        "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )


def _escape(value):
    return html.escape(str(value))
