"""The files of an evaluation: a page, its metrics, and a table of all predictions."""

import csv
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_bit.core.files import atomic_write, check_folder_name, write_json
from keras_bit.evaluation.evaluation import Evaluation
from keras_bit.evaluation.report import write_evaluation_page
from keras_bit.evaluation.saved_run import MODEL_FILE

EVALUATION_FILE = "evaluation.html"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
RESULT_FILES = (EVALUATION_FILE, METRICS_FILE, PREDICTIONS_FILE)
MOST_CLASSES = 100  # of more, the table of predictions has no column for each
SEPARATOR = "|"


def check_results_folder(output: str | os.PathLike, overwrite: bool) -> None:
    """Raises where `output` is a file, or holds a run, or such files and not `overwrite`."""
    path = check_folder_name(output)
    if (path / MODEL_FILE).exists():
        raise FileExistsError(
            f"`output` must not be the folder of a run, which has a {METRICS_FILE} of its own. "
            f"Received: output={output}. Choose another one, such as {path / 'evaluation'}."
        )
    there = [name for name in RESULT_FILES if (path / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"`output` must hold no evaluation. Received: output={output}, which holds "
            f"{', '.join(there)}. Choose another one, or set `overwrite` to replace it."
        )


def write_results(
    output: str | os.PathLike,
    evaluation: Evaluation,
    mistaken_images: np.ndarray | Sequence[np.ndarray],
    mistake_maps: np.ndarray | None = None,
) -> pathlib.Path:
    """Writes the page, whose path is returned, the metrics and the predictions to `output`.

    `mistaken_images` and `mistake_maps` are as for `write_report`.
    """
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / PREDICTIONS_FILE, evaluation)
    facts = {
        **evaluation.metrics,
        "images": len(evaluation.labels),
        "classes": len(evaluation.label_names),
        "temperature": evaluation.outputs.temperature,
    }
    shown = mistaken_images, mistake_maps
    write_evaluation_page(folder / EVALUATION_FILE, evaluation, facts, *shown)
    more = {
        "multi_label": evaluation.multi_label,
        "fitted_here": evaluation.fitted_here,
        "per_class": [scores._asdict() for scores in evaluation.class_scores],
    }
    write_json(folder / METRICS_FILE, _without_nan({**facts, **more}))
    return folder / EVALUATION_FILE


def write_predictions(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Writes a CSV file with a row for each image, in UTF-8; `evaluate` describes its columns."""
    with atomic_write(path) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows(_prediction_rows(evaluation))


def _prediction_rows(evaluation: Evaluation) -> Iterator[list[Any]]:
    names = evaluation.label_names
    few = len(names) <= MOST_CLASSES
    columns = [f"p({name})" for name in names] if few else []
    yield ["image", "true", "predicted", "probability", *columns]
    rows = (evaluation.labels, evaluation.predictions, evaluation.probabilities)
    for name, true, predicted, shares in zip(evaluation.names, *rows, strict=True):
        taken = np.flatnonzero(predicted) if evaluation.multi_label else [predicted]
        having = np.flatnonzero(true) if evaluation.multi_label else [true]
        cells = [SEPARATOR.join(names[class_id] for class_id in ids) for ids in (having, taken)]
        probability = SEPARATOR.join(str(float(shares[class_id])) for class_id in taken)
        yield [name, *cells, probability, *(shares.tolist() if few else ())]


def _without_nan(value: Any) -> Any:
    """`value` with null in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
