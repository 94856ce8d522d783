"""A finished run, opened to predict with its model."""

import contextlib
import dataclasses
import functools
import itertools
import mimetypes
import os
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_bit.core.device import is_out_of_memory, set_memory_growth
from keras_bit.core.file_faults import check_zip, fault_of, wrap_read_errors
from keras_bit.core.files import read_json
from keras_bit.core.text import list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.images import SKIP, ImageSource, try_read, try_transform
from keras_bit.data.resize import resize
from keras_bit.data.threads import threaded_map
from keras_bit.evaluation.class_maps import MapsOf, class_map_function
from keras_bit.evaluation.files import is_image
from keras_bit.evaluation.outputs import COPY_AGAIN, LABELS_FILE, OUTPUTS_FILE, RunOutputs
from keras_bit.evaluation.pixels import predict_pixels
from keras_bit.hyperrule.rule import HyperRule

# Also registers what saved models hold, in the command too.
from keras_bit.models.classifier import has_finite_weights
from keras_bit.models.fold import holds_backbone

MODEL_FILE = "model.keras"
RULE_FILE = "rule.json"
COMPLETE_FOLDER = "complete"  # of a run's output, while its files replace those of another run
BATCH_SIZE = 32
TOP = 3
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class FilePrediction:
    """What a model says of one file.

    Attributes:
        file: Path of the file, as it was given.
        classes: Pairs of a class's name and its probability, the most probable first; empty where
            the file cannot be read, or is skipped for it is damaged, and where an image that can
            have several labels has none.
        error: Why that is so, or `None`.
        maps: The class activation maps of `classes` where they were asked for, float32
            `(rows, columns, len(classes))`; see `keras_bit.BiTClassifier.class_maps`.
        map_file: Path of the PNG that shows them, or `None`.
    """

    file: str
    classes: tuple[tuple[str, float], ...]
    error: str | None = None
    maps: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)
    map_file: str | None = None


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The model of a complete run and what lies beside it, checked, but not loaded."""

    model_file: pathlib.Path
    label_names: tuple[str, ...]
    rule: HyperRule
    outputs: RunOutputs = RunOutputs()
    name: str = "run"  # of the argument, in errors

    @property
    def folder(self) -> pathlib.Path:
        """The folder that holds the run's files."""
        return self.model_file.parent

    @classmethod
    def open(cls, run: str | os.PathLike, name: str = "run") -> "SavedRun":
        """Returns the run in a folder, or of a `model.keras`; errors call the argument `name`."""
        path = pathlib.Path(run)
        must = f"`{name}` must be the output folder of a run, or the {MODEL_FILE} in it. Received:"
        if fault := _fault_of(path):
            raise FileNotFoundError(f"{must} {run}, {fault.format(name=name)}")
        model, labels, rule = _files_of(path)
        if model.is_file() and (fault := _fault_of_model(model)):
            raise ValueError(f"{must} {model}, which is no Keras model. It {fault}. {COPY_AGAIN}")
        if lack := _lack_of(path):
            raise FileNotFoundError(f"{must} {run}, {lack}")
        with wrap_read_errors(labels, f"`{name}` must hold a JSON list of class names", COPY_AGAIN):
            names = read_json(labels)
            if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
                raise ValueError(f"it holds {str(names)[:40]}")
        with wrap_read_errors(rule, f"`{name}` must hold the JSON of a rule", COPY_AGAIN):
            content = read_json(rule)
            made = HyperRule.from_config(content["config"])
        if content.get("multi_label") and not model.with_name(OUTPUTS_FILE).is_file():
            # As a softmax over labels of which an image has several, its logits would mislead.
            raise FileNotFoundError(f"{must} {run}, beside whose model {OUTPUTS_FILE} is missing.")
        outputs = RunOutputs.read(model.parent, len(names), name)
        return cls(model, tuple(names), made, outputs, name)

    def predict(
        self,
        files: Sequence[ImageSource],
        top: int | None = None,
        batch_size: int = BATCH_SIZE,
        damaged: str = SKIP,
        maps: bool = False,
    ) -> Iterator[FilePrediction]:
        """Yields a `FilePrediction` for each file; no more than a few batches are held at once.

        The model is loaded for the first file that can be read.
        """
        kept: list[str] = []
        images = threaded_map(functools.partial(self._resized, damaged), files)
        with contextlib.closing(images):
            while batch := list(itertools.islice(images, batch_size)):
                readable = [image for _, image, _ in batch if image is not None]
                answers = self._answers(np.stack(readable), top, maps) if readable else iter(())
                for file, image, reason in batch:
                    if image is None:
                        yield FilePrediction(file, (), reason)
                        continue
                    kept += [f"{file} ({reason})"] if reason else []
                    classes, class_maps = next(answers)
                    yield FilePrediction(file, classes, maps=class_maps)
        if kept:
            warn_caller(
                f"{len(kept)} of {len(files)} images are damaged and were decoded as far as they "
                f"can be: {list_some(kept, _NAMED)}"
            )

    def _resized(self, damaged, file):
        to_edge = functools.partial(resize, size=self.rule.crop_size)
        return file, *try_transform(file, to_edge, damaged)

    def load(self) -> keras.Model:
        """Returns the model, checked; it takes images of any size, of values in [0, 1]."""
        set_memory_growth()
        held = f"`{self.name}` must hold a model that keras_bit saved"
        with wrap_read_errors(self.model_file, held, COPY_AGAIN, unless=is_out_of_memory):
            check_zip(self.model_file)
            model = keras.models.load_model(self.model_file, compile=False)
            if not holds_backbone(model):
                raise ValueError("a model without a keras_bit.BiTBackbone")
            shape = model.compute_output_shape((1, self.rule.crop_size, self.rule.crop_size, 3))
            if not isinstance(shape, tuple) or len(shape) != 2:
                raise ValueError(f"a model with outputs {shape}, and not logits for each image")
        self._check_finite("weights", has_finite_weights(model))
        return model

    @functools.cached_property
    def model(self) -> keras.Model:
        """What `load` returns, loaded once."""
        return self.load()

    @functools.cached_property
    def class_maps(self) -> MapsOf | None:
        """The `class_map_function` of the model."""
        return class_map_function(self.model)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of the run's model for uint8 images, `(n, classes)`."""
        logits = predict_pixels(self.model, images)
        if logits.shape[-1] != len(self.label_names):
            raise ValueError(
                f"`{self.name}` must hold a name for each class in {LABELS_FILE}. Received: "
                f"{len(self.label_names)} names, and {logits.shape[-1]} classes in "
                f"{self.model_file}. {COPY_AGAIN}"
            )
        self._check_finite("outputs", np.isfinite(logits).all())
        return logits

    def _check_finite(self, what, finite):
        if not finite:
            raise FloatingPointError(
                f"The {what} of a model must be finite. Received: {self.model_file} with infinite "
                "or NaN ones. Train again with a lower `learning_rate`."
            )

    def _answers(self, images, top, maps):
        """Yields for each image the pairs of a `FilePrediction`, and their maps or `None`."""
        all_maps = self._maps(images) if maps else itertools.repeat(None)
        for logits, class_maps in zip(self.logits(images), all_maps, strict=False):
            best, probabilities = self._best(logits, top)
            classes = tuple((self.label_names[i], float(probabilities[i])) for i in best)
            yield classes, None if class_maps is None else class_maps[..., best]

    def _maps(self, images):
        if self.class_maps is None:
            raise ValueError(
                f"`{self.name}` must hold a keras_bit.BiTClassifier with average pooling: only "
                "then are logits the means of class activation maps. Received: "
                f"{self.model_file} with another model. Predict without `maps`."
            )
        return self.class_maps(images)

    def _best(self, logits, top):
        """The classes to name, and all probabilities: all labels of the image for no `top`."""
        probabilities = self.outputs.probabilities(logits)
        best = (-probabilities).argsort(kind="stable")
        if top is None and self.outputs.multi_label:
            best = best[self.outputs.decide(logits)[best] == 1]
        else:
            best = best[: TOP if top is None else top]
        return best, probabilities


def _files_of(path):
    """The three files of a run, by its folder or by the model in it."""
    if (path / COMPLETE_FOLDER).is_dir():
        path /= COMPLETE_FOLDER
    model = path / MODEL_FILE if path.is_dir() else path
    return model, model.with_name(LABELS_FILE), model.with_name(RULE_FILE)


def _fault_of(path: pathlib.Path) -> str | None:
    """What is wrong with the path of a run; `None` where it may be one."""
    is_folder = path.is_dir()
    kind, _ = mimetypes.guess_type(path.name)
    if (kind or "").startswith("image/") and not is_folder or try_read(is_image, path)[0]:
        return "an image. `{name}` comes first, and then the images."
    if not path.exists():
        return "which does not exist."
    if not is_folder and not path.is_file():
        return "which is not a regular file."
    return None


def _lack_of(path: pathlib.Path) -> str | None:
    """Which files of a run are missing; `None` where they are there."""
    missing = [file.name for file in _files_of(path) if not file.is_file()]
    if not missing:
        return None
    where = "in which" if path.is_dir() else "beside which"
    files = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
    verb = "are" if missing[1:] else "is"
    return f"{where} {files} {verb} missing. A run writes them when it is complete."


def _fault_of_model(file: pathlib.Path) -> str | None:
    """What is wrong with a file that is no whole zip file, as a model is."""
    return fault_of(file) or (None if zipfile.is_zipfile(file) else "is no zip file")
