"""What is exported: a model, or that of a run, and what its outputs mean."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from scipy import special

from keras_bit.core.text import list_some
from keras_bit.data import ImageDataset
from keras_bit.evaluation import RunOutputs
from keras_bit.evaluation.pixels import are_probabilities, parts_of, predict_pixels
from keras_bit.evaluation.subject import Subject
from keras_bit.layers.backbone import BiTBackbone
from keras_bit.layers.image_input import check_value_range
from keras_bit.models.fold import copy_weights, folded_copy, holds_backbone, uncompiled
from keras_bit.training.memory import FLOAT32_SIZE

RUN_RANGE = (0, 1)  # of the images of `keras_bit.pipelines`
_OTHER_POLICIES = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64")
_PROBABILITIES = (
    keras.activations.softmax,
    keras.activations.sigmoid,
    keras.ops.softmax,
    keras.ops.sigmoid,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model that computes in float32, and how it is used.

    Attributes:
        model: It has outputs (batch, classes).
        size: Height and width that its images are resized to, each `None` for any.
        any_image: Whether the exported file takes images of any size by default.
        value_range: What it takes.
        outputs: How to read its logits.
        label_names: Of its classes, or `None`.
        gives: `"logits"`, `"probabilities"`, or `"features"`.
    """

    model: keras.Model
    size: tuple[int | None, int | None]
    any_image: bool
    value_range: tuple[int, int]
    outputs: RunOutputs
    label_names: tuple[str, ...] | None
    gives: str

    @classmethod
    def of(
        cls, model_or_run: Any, value_range: Sequence[float] | None, data: ImageDataset | None
    ) -> "Source":
        """Returns what to export of a model, a run's folder, or a `FineTuneResult`.

        Classes of a model are those of `data`; those of a run must be the same.
        """
        source = cls._of(model_or_run, value_range)
        if data is None:
            return source
        if source.label_names is None:
            outputs = RunOutputs(multi_label=data.multi_label)
            source = dataclasses.replace(source, outputs=outputs, label_names=data.label_names)
        classes = source.model.output_shape[-1]
        same = tuple(data.label_names) == source.label_names and len(data.label_names) == classes
        if not same or data.multi_label != source.outputs.multi_label:
            raise ValueError(
                f"`data` must have the {classes} classes of the model, in its order: "
                f"{list_some(source.label_names, 3)}. Received: {data.num_classes}, "
                f"{list_some(data.label_names, 3)}"
            )
        return source

    @classmethod
    def _of(cls, model_or_run, value_range):
        if not isinstance(model_or_run, keras.Model):
            return cls._of_run(model_or_run, value_range)
        model = _checked_model(model_or_run)
        return cls(
            model=_in_float32(model),
            size=tuple(model.input_shape[1:3]),
            any_image=False,
            value_range=_value_range_of(model, value_range),
            outputs=RunOutputs(multi_label=model.output_shape[-1] == 1),
            label_names=None,
            gives=_gives(model),
        )

    @classmethod
    def _of_run(cls, run, value_range):
        subject = Subject.of(run, "model_or_run")
        if value_range is not None:
            raise ValueError(
                "`value_range` must be omitted for a run, whose model takes what `pipelines` "
                f"gives. Received: value_range={value_range!r}"
            )
        return cls(
            model=_in_float32(_checked_model(subject.model())),
            size=(subject.edge, subject.edge),
            any_image=True,
            value_range=RUN_RANGE,
            outputs=subject.outputs or RunOutputs(),
            label_names=tuple(subject.label_names or ()),
            gives="logits",
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in float32."""
        return FLOAT32_SIZE * self.model.count_params()

    def folded(self) -> keras.Model:
        """Returns the model with its kernels standardized."""
        return folded_copy(self.model)

    def predict(self, images: np.ndarray, probabilities: bool) -> np.ndarray:
        """Returns what Keras says of uint8 images (n, height, width, 3) of the model's size."""
        outputs = predict_pixels(self.model, images, self.value_range)
        if self.gives != "logits":
            return outputs
        if outputs.shape[-1] > 1 and are_probabilities(outputs, multi_label=False):
            raise ValueError(
                "`model_or_run` must end with its logits, or with a softmax or sigmoid. Received: "
                f"a model whose last layer {self.model.layers[-1].name!r} hides a softmax: its "
                "outputs are probabilities. End it with its logits, or with keras.layers.Softmax."
            )
        if probabilities:
            return self.outputs.probabilities(outputs)
        return outputs / self.outputs.temperature

    def activation(self, probabilities: bool) -> str | None:
        """Returns the name of what turns the model's logits into what is exported."""
        if self.gives != "logits" or not probabilities:
            return None
        return "sigmoid" if self.outputs.multi_label else "softmax"

    def decide(self, exported: np.ndarray, probabilities: bool) -> np.ndarray:
        """Returns the classes (n,) that exported outputs name, or the labels (n, classes)."""
        if not self.outputs.multi_label:
            return exported.argmax(axis=-1)
        shares = exported if probabilities else special.expit(exported)
        return shares >= np.array(self.outputs.all_thresholds(shares.shape[-1]))


def _checked_model(model):
    if not holds_backbone(model):
        raise ValueError(
            "`model_or_run` must have a keras_bit.BiTBackbone among its layers. Received: "
            f"{model!r}. Use `model.export` of Keras for other models."
        )
    if not model.built:
        raise ValueError(
            "`model_or_run` must be built. Received: a model that does not know its input. Call it "
            "on images once, or begin it with keras.Input((None, None, 3))."
        )
    for what, shape, rank in (("input", model.input_shape, 4), ("output", model.output_shape, 2)):
        if not isinstance(shape, tuple) or len(shape) != rank:
            raise ValueError(
                "`model_or_run` must take one batch of images and give one row for each. "
                f"Received: a model with {what} shape {shape}"
            )
    return model


def _in_float32(model):
    """The model, or its twin that computes in float32: runtimes have no other convolutions."""
    with uncompiled(model):  # Its loss may be registered nowhere.
        config = keras.saving.serialize_keras_object(model)
    changed = _with_float32(config)
    if changed == config:
        return model
    twin = keras.saving.deserialize_keras_object(changed, safe_mode=False)
    copy_weights(model, twin)
    return twin


def _with_float32(config):
    if isinstance(config, (list, tuple)):
        return type(config)(map(_with_float32, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in _OTHER_POLICIES:
        return {**config, "config": {"name": "float32"}}
    return {key: _with_float32(value) for key, value in config.items()}


def _value_range_of(model, value_range):
    if value_range is not None:
        value_range = check_value_range(value_range)
    first = model
    while isinstance(first, keras.Model):
        first = next(x for x in parts_of(first) if not isinstance(x, keras.layers.InputLayer))
    if isinstance(first, BiTBackbone):
        if value_range not in (None, first.value_range):
            raise ValueError(
                "`value_range` must be that of the BiTBackbone that the model begins with, "
                f"{first.value_range}, or omitted. Received: value_range={value_range}"
            )
        return first.value_range
    if value_range is None:
        raise ValueError(
            "`value_range` must be given for a model that does not begin with its BiTBackbone: "
            f"(0, 1), (0, 255) or (-1, 1). Received: None, and the first layer {first!r}"
        )
    return value_range


def _gives(model):
    last = model
    while isinstance(last, keras.Model):
        last = parts_of(last)[-1]
    if isinstance(last, BiTBackbone):
        return "features"
    # Layers, and operations as `keras.activations` and `keras.ops` leave them.
    is_softmax = type(last).__name__ in ("Softmax", "Sigmoid")
    ends = is_softmax or getattr(last, "activation", None) in _PROBABILITIES
    return "probabilities" if ends else "logits"
