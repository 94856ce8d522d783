"""Predictions for files of images, by the model of a run."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterable

import keras
import numpy as np

import keras_bit.models  # noqa: F401  registers what saved models hold, in the command too
from keras_bit.core.arguments import check_integer
from keras_bit.core.device import set_memory_growth
from keras_bit.data.cache import resize
from keras_bit.data.images import decode_image, threaded_map, try_read
from keras_bit.evaluation.evaluation import probabilities_of
from keras_bit.hyperrule.rule import HyperRule

MODEL_FILE = "model.keras"
LABELS_FILE = "label_names.json"
RULE_FILE = "rule.json"


@dataclasses.dataclass(frozen=True)
class FilePrediction:
    """What a model says of one file.

    Attributes:
        file: Path of the file, as it was given.
        classes: Pairs of a class's name and its probability, the most probable first; empty where
            the file cannot be read.
        error: Why the file cannot be read, or `None`.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    error: str | None = None


def predict_files(
    run: str | os.PathLike,
    files: Iterable[str | os.PathLike],
    *,
    top: int = 3,
    batch_size: int = 32,
) -> list[FilePrediction]:
    """Names the classes of image files.

    Images are decoded and resized as those that the run was evaluated on. Files that cannot be
    read are reported and do not stop the others.

    Args:
        run: Output folder of `keras_bit.fine_tune`, or the `model.keras` in it; beside the model
            lie `label_names.json` and `rule.json`.
        files: Paths of JPEG, PNG, BMP or GIF files.
        top: Number of classes for each file.
        batch_size: Number of images that are predicted together.

    Returns:
        A list of `FilePrediction`, one for each file, in order.

    Raises:
        FileNotFoundError: If one of the run's files does not exist.
        ValueError: If a number is out of range.

    Example:

    ```python
    import tempfile
    import keras_bit

    folder = tempfile.mkdtemp()
    data = keras_bit.digits(examples_per_class=2)
    keras_bit.fine_tune(data, schedule_length=1, crop_size=32, output=folder, verbose=0)
    keras.utils.save_img(f"{folder}/digit.png", next(data.test.map(lambda image: image)))
    for prediction in keras_bit.predict_files(folder, [f"{folder}/digit.png"], top=1):
        print(prediction.file, prediction.classes)
    ```
    """
    top = check_integer("top", top, minimum=1)
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    path = pathlib.Path(run)
    path = path / MODEL_FILE if path.is_dir() else path
    label_names = json.loads(_read(path.with_name(LABELS_FILE)))
    rule = HyperRule.from_config(json.loads(_read(path.with_name(RULE_FILE)))["config"])
    if not path.is_file():
        raise _missing(path)
    set_memory_growth()
    model = keras.models.load_model(path, compile=False)
    names = [os.fspath(file) for file in files]
    return list(_predictions(model, names, rule.crop_size, label_names, top, batch_size))


def _read(path):
    if not path.is_file():
        raise _missing(path)
    return path.read_text(encoding="utf-8")


def _missing(path):
    return FileNotFoundError(
        f"`run` must be the output folder of a run, or the model in it. Received: {path} "
        "does not exist."
    )


def _predictions(model, files, edge, label_names, top, count):
    def resized(file):
        image, reason = try_read(decode_image, file)
        return file, None if image is None else resize(image, edge), reason

    with contextlib.closing(threaded_map(resized, files)) as images:
        while batch := list(itertools.islice(images, count)):
            readable = [image for _, image, _ in batch if image is not None]
            rows = iter(())
            if readable:
                pixels = np.stack(readable).astype("float32") / 255
                rows = iter(probabilities_of(model.predict_on_batch(pixels)))
            for file, _, reason in batch:
                classes = () if reason is not None else _best(next(rows), label_names, top)
                yield FilePrediction(file, classes, reason)


def _best(probabilities, label_names, top):
    best = (-probabilities).argsort(kind="stable")[:top]
    return tuple((label_names[index], float(probabilities[index])) for index in best)
