"""How good a model or a run is on a data set."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_bit.core.arguments import check_integer
from keras_bit.core.text import announce, list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.cache import CachedImages, cache_images
from keras_bit.data.dataset import ImageDataset, check_dataset, class_counts
from keras_bit.data.pipeline import check_cache_dir
from keras_bit.evaluation.evaluation import TEMPERATURE, THRESHOLDS, Evaluation
from keras_bit.evaluation.pixels import are_probabilities
from keras_bit.evaluation.report import SHOWN_MISTAKES
from keras_bit.evaluation.results import check_results_folder, write_results
from keras_bit.evaluation.saved_run import BATCH_SIZE
from keras_bit.evaluation.subject import LogitsOf, ModelOrRun, Subject
from keras_bit.hyperrule.rule import HyperRule

FIT = "fit"
TRAIN, TEST, ALL = SPLITS = ("train", "test", "all")
_NAMED = 5


def evaluate(
    model_or_run: ModelOrRun,
    data: ImageDataset,
    *,
    split: str | None = None,
    rule: HyperRule | None = None,
    image_size: int | None = None,
    label_names: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike | None = None,
    temperature: bool | str = True,
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    verbose: bool | int | str = "auto",
) -> Evaluation:
    """Evaluates a model on labeled images.

    Images are decoded and resized as the test images of `pipelines`. Classes are matched by their
    names: data may have them in another order, or only some of them.

    Args:
        model_or_run: Output folder of a run (or the `model.keras` in it), what `fine_tune` returns,
            or a `keras.Model` with logits `(batch, classes)` as output, which gets images in the
            `value_range` of its `BiTBackbone`, as they are before a `Rescaling`, or in [0, 1].
        data: A `keras_bit.ImageDataset`.
        split: Which of its images: `"test"`, `"train"`, or `"all"` of them. Default: all, as of a
            folder of new images, of which none serves training; but the test images of the data
            that the run was trained on, of data that came with test images, and for a
            `keras.Model`, which does not tell what it was trained on.
        rule: A `keras_bit.HyperRule`, whose `crop_size` is the size of the images.
        image_size: Height and width to which images are resized, in pixels. Default: those of the
            run's test images, or of the input of the model.
        label_names: Names of the model's classes, in their order. Default: those of the run; for a
            `keras.Model`, those of the data.
        batch_size: Number of images that are predicted together.
        cache_dir: Folder for the resized images, as for `pipelines`; by default they are held in
            memory.
        temperature: `True` for the temperature that is stored with the run, 1 where none was
            fitted; `False` for none; `"fit"` to fit it to these images, which must be others than
            the model was trained on, and to store it in `outputs.json` of the run, where
            `predict_files` finds it. The scores are then those with it, and say that it was fitted
            on the same images: for a fair calibration error evaluate further images.
        output: Folder to write `evaluation.html`, `metrics.json` and `predictions.csv` to; nothing
            is written by default. A row of the last is an image: `image`, `true`, `predicted`,
            `probability` of the prediction, and of up to 100 classes the probability of each,
            `p(CLASS)`. Where an image has several labels, `|` stands between them, and between
            their probabilities.
        overwrite: Whether these files may replace those of an earlier evaluation.
        verbose: As in `fit`.

    Returns:
        A `keras_bit.Evaluation`, with the classes of the model.

    Raises:
        FileNotFoundError: If there is no complete run in the folder.
        FileExistsError: If `output` holds such files and `overwrite` is not set.
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data have classes that the model does not, an argument is out of range,
            or the outputs of a `keras.Model` are no logits of these classes.
        FloatingPointError: If weights or outputs of the model are infinite or NaN.
        MemoryError: If `cache_dir` is `None` and the images need more memory than is available.

    Warns where the images are those that the run was trained on, and where they may be: data with
    as many images of each class, copied since or split with another seed.

    Example:

    >>> images, labels = np.zeros((4, 32, 32, 3), np.uint8), [0, 0, 1, 1]
    >>> data = keras_bit.ImageDataset.from_arrays(images, labels, images, labels, ("cat", "dog"))
    >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.0625), 2)
    >>> evaluation = keras_bit.evaluate(model, data, image_size=32, verbose=0)
    >>> evaluation.metrics["accuracy"]
    0.5
    """
    if output is not None:
        check_results_folder(output, overwrite)
    prepared = Preparation.of(
        Subject.of(model_or_run),
        data,
        split=split,
        rule=rule,
        image_size=image_size,
        label_names=label_names,
        batch_size=batch_size,
        cache_dir=cache_dir,
        temperature=temperature,
    )
    bar = keras.utils.Progbar(prepared.count, verbose=int(bool(verbose)), unit_name="image")
    logits = []
    for batch in prepared.batches():
        logits.append(batch)
        bar.add(len(batch))
    evaluation = prepared.evaluation(logits)
    for line in prepared.messages:
        announce(line, verbose)
    if output is not None:
        prepared.write(output, evaluation)
    return evaluation


class Preparation:
    """An evaluation with checked arguments: `batches` of logits, and what they say.

    Attributes:
        count: Number of images.
        steps: Number of batches.
        messages: What is to be told of the evaluation beside its result, lines of text.
        split: Which images of the data they are.
    """

    def __init__(
        self,
        subject: Subject,
        split: str,
        caches: list[CachedImages],
        label_names: tuple[str, ...],
        ids: list[int],
        batch_size: int,
        temperature: bool | str,
        chose_thresholds: bool = False,
    ) -> None:
        self.messages: list[str] = []
        self.count = sum(map(len, caches))
        self.steps = sum(-(-len(cached) // batch_size) for cached in caches)
        self.split = split
        self._subject = subject
        self._caches = caches
        self._label_names = label_names
        self._ids = ids  # of the model's classes, for each of the data's
        self._batch_size = batch_size
        self._temperature = temperature
        self._chose_thresholds = chose_thresholds  # the run, by these images

    @classmethod
    def of(
        cls,
        subject: Subject,
        data: ImageDataset,
        split: str | None = None,
        rule: HyperRule | None = None,
        image_size: int | None = None,
        label_names: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
        cache_dir: str | os.PathLike | None = None,
        temperature: bool | str = True,
    ) -> "Preparation":
        """Checks the arguments, which are those of `evaluate`, and decodes the images."""
        check_dataset(data)
        split = default_split(subject, data) if split is None else split
        if split not in SPLITS:
            raise ValueError(f"`split` must be one of {SPLITS}. Received: split={split!r}")
        if temperature != FIT and not isinstance(temperature, (bool, np.bool_)):
            raise ValueError(
                f"`temperature` must be True, False or 'fit'. Received: temperature={temperature!r}"
            )
        batch_size = check_integer("batch_size", batch_size, minimum=1)
        check_cache_dir(cache_dir)
        edge = subject.resolve_edge(rule, image_size)
        names = _label_names(subject, label_names, data)
        ids = _matched_classes(data.label_names, names)
        _check_kind(subject, data)
        _check_fresh(subject, data, split, temperature)
        parts = (TRAIN, TEST) if split == ALL else (split,)
        caches = [cache_images(getattr(data, part), edge, part, cache_dir) for part in parts]
        of_run = split == TEST and subject.test_fingerprint == data.test.fingerprint
        chosen = of_run and subject.outputs is not None and subject.outputs.thresholds is not None
        return cls(subject, split, caches, names, ids, batch_size, temperature, chosen)

    def batches(self) -> Iterator[np.ndarray]:
        """Yields the logits of all images, a batch at a time; the model is loaded for the first."""
        logits_of = self._subject.load()
        for cached in self._caches:
            for start in range(0, len(cached), self._batch_size):
                rows = np.arange(start, min(start + self._batch_size, len(cached)))
                yield self._checked(logits_of, cached.take(rows))

    def evaluation(self, logits: Sequence[np.ndarray]) -> Evaluation:
        """Returns the evaluation of all `batches`; stores a temperature that is fitted to it."""
        labels = np.concatenate([self._own_labels(cached.labels) for cached in self._caches])
        names = tuple(name for cached in self._caches for name in cached.names)
        outputs = self._subject.outputs
        if outputs is not None and not self._temperature:
            outputs = outputs.with_temperature(1.0)
        rows = np.concatenate(logits)
        if self._multi_label:  # else each batch has been checked
            self._refuse_probabilities(rows)
        known: dict[str, Any] = {} if outputs is None else {"outputs": outputs}
        if self._chose_thresholds:
            known["fitted_here"] = (THRESHOLDS,)
        evaluation = Evaluation(labels, rows, self._label_names, names, **known)
        return self._fitted(evaluation) if self._temperature == FIT else evaluation

    def write(self, output: str | os.PathLike, evaluation: Evaluation) -> pathlib.Path:
        """Writes the files of the evaluation to a folder, and returns the path of the page."""
        images = self.mistaken_images(evaluation)
        maps_of = self._subject.class_maps() if len(images) else None
        return write_results(output, evaluation, images, maps_of(images) if maps_of else None)

    def mistaken_images(self, evaluation: Evaluation) -> np.ndarray:
        """Returns the images that a page shows as mistakes, uint8 `(n, edge, edge, 3)`."""
        starts = np.cumsum([0, *map(len, self._caches)])
        images = []
        for mistake in evaluation.mistakes(SHOWN_MISTAKES):
            part = int(np.searchsorted(starts, mistake.index, side="right")) - 1
            images.append(self._caches[part].take([mistake.index - starts[part]])[0])
        return np.array(images)

    def _checked(self, logits_of: LogitsOf, images: np.ndarray) -> np.ndarray:
        logits = logits_of(images)
        if logits.shape != (len(images), len(self._label_names)):
            raise ValueError(
                "`model_or_run` must have an output for each class. Received: outputs of shape "
                f"{logits.shape} for {len(images)} images and {len(self._label_names)} classes. "
                "Pass the names of its classes as `label_names`."
            )
        if not self._multi_label:
            self._refuse_probabilities(logits)
        return logits

    def _refuse_probabilities(self, outputs):
        # Logits of some images, each for itself, may look like those of a sigmoid.
        if self._subject.outputs is None and are_probabilities(outputs, self._multi_label):
            raise ValueError(
                "`model_or_run` must return logits. Received: a model whose outputs are "
                "probabilities. Take the activation off its last layer: `activation=None`."
            )

    @property
    def _multi_label(self):
        return self._caches[0].labels.ndim == 2

    def _own_labels(self, labels):
        """Labels of the data as those of the model."""
        if labels.ndim == 1:
            return np.asarray(self._ids)[labels]
        own = np.zeros((len(labels), len(self._label_names)), np.uint8)
        own[:, self._ids] = labels
        return own

    def _fitted(self, evaluation):
        try:
            outputs = evaluation.outputs.fit_temperature(evaluation)
        except ValueError as error:
            warn_caller(f"{error} The temperature is left as it was.")
            return evaluation
        where = ""
        if self._subject.folder is not None:
            outputs.write(self._subject.folder)
            where = f", stored in {self._subject.folder}"
        here = (*evaluation.fitted_here, TEMPERATURE)
        fitted = dataclasses.replace(evaluation, outputs=outputs, fitted_here=here)
        before, after = (
            f"loss {each.metrics['loss']:.4f}, calibration error "
            f"{each.metrics['calibration_error']:.4f}"
            for each in (evaluation, fitted)
        )
        self.messages.append(
            f"Temperature {outputs.temperature:.4g}{where}. Before: {before}. With it, on the same "
            f"images: {after}."
        )
        return fitted


def _label_names(subject, label_names, data):
    """The names of the model's classes, in its order."""
    if label_names is None:
        return subject.label_names or data.label_names
    names = tuple(label_names)
    known = subject.label_names
    if known is not None and names != known:
        raise ValueError(
            "`label_names` must be omitted for a run, which knows its own. "
            f"Received: label_names={list_some(names, _NAMED)}"
        )
    return names


def _matched_classes(data_names: Sequence[str], model_names: Sequence[str]) -> list[int]:
    """For each class of the data its id among those of the model."""
    ids = {name: index for index, name in enumerate(model_names)}
    if unknown := [name for name in data_names if name not in ids]:
        raise ValueError(
            "`data` must have classes of the model only. Received: data with "
            f"{list_some([repr(name) for name in unknown], _NAMED)}, and a model of "
            f"{len(model_names):,} classes: {list_some([repr(n) for n in model_names], _NAMED)}. "
            "Rename the classes as they were called in training, or leave these out."
        )
    return [ids[name] for name in data_names]


def _check_kind(subject, data):
    if subject.outputs is not None and subject.outputs.multi_label != data.multi_label:
        kinds = {True: "several labels an image", False: "one class an image"}
        raise ValueError(
            f"`data` must have {kinds[not data.multi_label]}, as those of the run. Received: data "
            f"with {kinds[data.multi_label]}"
        )


def _check_fresh(subject, data, split, temperature):
    """Warns of scores on the images of training, and refuses a temperature for them."""
    seen = split != TEST and was_trained_on(subject, data)
    if seen and temperature == FIT:
        raise ValueError(
            "`temperature` must be fitted to images that the run was not trained on. Received: "
            f"the {split} images of the data that it was trained on. Take the test images."
        )
    if seen:
        warn_caller(
            "The run was trained on these images, or on a part of them: on others its scores are "
            "lower. Its test images are those that it was not trained on."
        )
    elif split == TEST and data.test_is_held_out and _is_split_otherwise(subject, data):
        warn_caller(
            "The data have as many images of each class as those that the run was trained on, and "
            "other test images. If they are the same, copied or split in another way, the run was "
            "trained on most of these: use the run's own `seed` and `validation_split`."
        )
    elif split != TEST and _may_be_those_of(subject, data):
        warn_caller(
            "The data have as many images of each class as those that the run was trained on. If "
            "they are the same, copied or split with another `seed`, the run was trained on most "
            "of them: take the test images, with the run's own `seed` and `validation_split`."
        )


def default_split(subject: Subject, data: ImageDataset) -> str:
    """The images of `data` that are evaluated where nobody says which."""
    is_run = subject.folder is not None or subject.train_fingerprint is not None
    is_new = is_run and data.test_is_held_out and not was_trained_on(subject, data)
    return ALL if is_new else TEST


def _is_split_otherwise(subject, data):
    """Whether the test images may be some of the run's training images."""
    others = subject.test_fingerprint not in (None, data.test.fingerprint)
    return others and _may_be_those_of(subject, data)


def _may_be_those_of(subject, data):
    """Whether data that the fingerprint does not tell may be those of the run nevertheless."""
    if not subject.image_counts:
        return False
    train, test = (class_counts(each.labels, data.num_classes) for each in (data.train, data.test))
    found = dict(zip(data.label_names, (train + test).tolist(), strict=True))
    return found == dict(zip(subject.label_names, subject.image_counts, strict=True))


def was_trained_on(subject: Subject, data: ImageDataset) -> bool:
    """Whether the run was trained on the training images of `data`, or on some of them.

    A few-shot run has the test images of all.
    """
    same_test = data.test_is_held_out and subject.test_fingerprint == data.test.fingerprint
    return same_test or subject.train_fingerprint == data.train.fingerprint
