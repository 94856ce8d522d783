"""What is evaluated: a model, and what a run knows of it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import keras
import numpy as np

from keras_bit.core.arguments import check_integer
from keras_bit.core.files import read_json
from keras_bit.evaluation.class_maps import MapsOf, class_map_function
from keras_bit.evaluation.outputs import RunOutputs
from keras_bit.evaluation.pixels import predict_pixels, value_range_of
from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.image_input import MIN_EDGE

if TYPE_CHECKING:
    from keras_bit.training.run import FineTuneResult

PLAN_FILE = "plan.json"
ModelOrRun = Union[str, os.PathLike, keras.Model, "FineTuneResult"]
LogitsOf = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is to be evaluated, checked, but not loaded.

    Attributes:
        model: Returns the model, loaded once.
        load: Returns a function from uint8 images `(n, edge, edge, 3)` to logits `(n, classes)`.
        edge: Height and width of the images that the model was made for in pixels, if known.
        label_names: Names of its classes, if known.
        outputs: What its logits mean, if known.
        folder: The folder of its run, where there is one.
        train_fingerprint: That of the images it was trained on, if known.
        test_fingerprint: That of the validation images of its run, if known.
        image_counts: How many images of each class its run had, for training and validation
            together, if known.
        class_maps: Returns a function from such images to class activation maps, if it has any.
    """

    model: Callable[[], keras.Model]
    load: Callable[[], LogitsOf]
    edge: int | None = None
    label_names: tuple[str, ...] | None = None
    outputs: RunOutputs | None = None
    folder: pathlib.Path | None = None
    train_fingerprint: str | None = None
    test_fingerprint: str | None = None
    image_counts: tuple[int, ...] | None = None
    class_maps: Callable[[], MapsOf | None] = lambda: None

    @classmethod
    def of(cls, model_or_run: ModelOrRun, name: str = "model_or_run") -> "Subject":
        """Returns what can be known of a model or run without loading it.

        Errors call the argument `name`.
        """
        if isinstance(model_or_run, (str, os.PathLike)):
            return cls._of_saved(SavedRun.open(model_or_run, name))
        if isinstance(model_or_run, keras.Model):
            return cls._of_model(model_or_run)
        if hasattr(model_or_run, "evaluation") and hasattr(model_or_run, "plan"):
            return cls._of_result(model_or_run)
        raise TypeError(
            f"`{name}` must be the output folder of a run, what `keras_bit.fine_tune` returns, or "
            f"a keras.Model. Received: {name}={model_or_run!r}"
        )

    @classmethod
    def _of_saved(cls, run):
        return cls(
            model=lambda: run.model,
            load=lambda: run.logits,
            edge=run.rule.crop_size,
            label_names=run.label_names,
            outputs=run.outputs,
            folder=run.folder,
            class_maps=lambda: run.class_maps,
            **_known_data(run.folder),
        )

    @classmethod
    def _of_result(cls, result):
        data, outputs = result.plan.data, result.evaluation.outputs
        if result.output is not None:  # a temperature may have been fitted since
            outputs = RunOutputs.read(result.output, len(data.label_names))
        return dataclasses.replace(
            cls._of_model(result.model),
            edge=result.rule.crop_size,
            label_names=data.label_names,
            outputs=outputs,
            folder=result.output,
            train_fingerprint=data.train_fingerprint,
            test_fingerprint=data.test_fingerprint,
            image_counts=_image_counts(data.train_counts, data.test_counts),
            class_maps=lambda: class_map_function(result.model),
        )

    @classmethod
    def _of_model(cls, model):
        outputs: Any = getattr(model, "output_shape", None)
        if outputs is not None and not (isinstance(outputs, tuple) and len(outputs) == 2):
            raise ValueError(
                "`model_or_run` must have one output, of shape (batch, classes). Received: a model "
                f"with output shape {outputs}. Of several take one: "
                "`keras.Model(model.input, model.outputs[0])`."
            )
        shape: Any = getattr(model, "input_shape", None)
        square = isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2]
        edge = shape[1] if square else None
        value_range = value_range_of(model)

        def load():
            return functools.partial(predict_pixels, model, value_range=value_range)

        return cls(lambda: model, load, edge)

    def resolve_edge(self, rule: Any = None, image_size: Any = None) -> int:
        """Returns the height and width that images get, by the arguments of `evaluate`."""
        if rule is not None and image_size is not None:
            raise ValueError(
                "`image_size` must be omitted where `rule` is given, whose `crop_size` it is. "
                f"Received: image_size={image_size}"
            )
        if rule is not None and not isinstance(rule, HyperRule):
            raise ValueError(f"`rule` must be a keras_bit.HyperRule. Received: rule={rule!r}")
        edge = image_size if rule is None else rule.crop_size
        edge = self.edge if edge is None else edge
        if edge is None:
            raise ValueError(
                "`image_size` must be given for a model that takes images of any size. Received: "
                "image_size=None. It is the height and width that test images had in training."
            )
        return check_integer("image_size", edge, minimum=MIN_EDGE)


def _known_data(folder):
    """The fingerprints and `image_counts`, as far as the files of a run tell."""
    try:
        data = read_json(folder / PLAN_FILE)["data"]
        return {
            "train_fingerprint": data["train_fingerprint"],
            "test_fingerprint": data.get("test_fingerprint"),
            "image_counts": _image_counts(
                data.get("train_counts", ()), data.get("test_counts", ())
            ),
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # a model may be handed on without the plan of its run


def _image_counts(train_counts, test_counts):
    return tuple(map(sum, zip(train_counts, test_counts, strict=True)))
