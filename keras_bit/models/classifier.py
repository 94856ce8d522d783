"""The classifier: a backbone and its head."""

import os
from typing import Any

import keras
from keras import ops

from keras_bit.core.saving import register
from keras_bit.layers.backbone import ANY_SIZE, BiTBackbone, network_function
from keras_bit.layers.head import ZeroInitHead
from keras_bit.weights.assign import assign_strictly
from keras_bit.weights.formats import read_weights
from keras_bit.weights.npz import write_npz


@register
class BiTClassifier(keras.Sequential):
    """A `keras.Sequential` of a `BiTBackbone` and a `ZeroInitHead`, built for images of any size.

    To fine-tune on classes of your own, give it a pretrained backbone and a new head:
    `BiTClassifier(BiTBackbone.from_preset("m-r50x1"), num_classes)`. To predict the classes that
    a released network was trained on, use `BiTClassifier.from_preset`.

    Args:
        backbone: A `keras_bit.BiTBackbone` that pools its features.
        head: The number of classes, or a `keras_bit.ZeroInitHead`.
        name: Name of the model.

    Call arguments and `value_range`: those of the backbone. Output: logits (batch, classes),
    float32.

    Raises:
        ValueError: If an argument is of the wrong kind.

    Example:

    >>> model = keras_bit.BiTClassifier(keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25), 10)
    >>> tuple(model(keras.ops.zeros((2, 32, 32, 3))).shape)
    (2, 10)
    """

    def __init__(
        self, backbone: BiTBackbone, head: int | ZeroInitHead, *, name: str | None = None
    ) -> None:
        if not isinstance(backbone, BiTBackbone) or backbone.pooling is None:
            raise ValueError(
                "`backbone` must be a keras_bit.BiTBackbone with `pooling`. "
                f"Received: backbone={backbone!r}"
            )
        head = head if isinstance(head, ZeroInitHead) else ZeroInitHead(head)
        super().__init__([backbone, head], name=name)
        self.build(ANY_SIZE)

    @classmethod
    def from_preset(
        cls, name: str | os.PathLike, num_classes: int | None = None, **kwargs: Any
    ) -> "BiTClassifier":
        """Returns a pretrained network with its head.

        Args:
            name: A name of `keras_bit.presets()`, such as `"m-r50x1/ilsvrc2012_classification"`,
                or another source as in `BiTBackbone.from_preset`.
            num_classes: The number of classes that the head must have; any by default.
            **kwargs: Further arguments of `BiTBackbone`, such as `value_range`.

        Raises:
            FileNotFoundError, ValueError, ConnectionError: As `BiTBackbone.from_preset`.
            ValueError: Also if there is no head, or it has another number of classes.
        """
        return cls._from_source(name, num_classes, kwargs)

    @classmethod
    def from_weights(
        cls, source: str | os.PathLike, num_classes: int | None = None, **kwargs: Any
    ) -> "BiTClassifier":
        """Alias of `from_preset`."""
        return cls._from_source(source, num_classes, kwargs)

    @classmethod
    def _from_source(cls, source, num_classes, kwargs):
        arrays = read_weights(source, network_function)
        head = arrays.only_head()
        if len(head) < 2:
            raise ValueError(
                "The weights must include a head. Received: "
                f"{arrays.source} without one. Use `BiTClassifier(BiTBackbone.from_weights(...), "
                "num_classes)` to put a new head on it."
            )
        (classes,) = head.shapes["head/bias"]
        if num_classes not in (None, classes):
            raise ValueError(
                f"`num_classes` must be that of the released head, {classes} in {arrays.source}. "
                f"Received: num_classes={num_classes}. For classes of your own use "
                "`BiTClassifier(BiTBackbone.from_preset(...), num_classes)`."
            )
        model = cls(BiTBackbone.from_arrays(arrays, **kwargs), classes)
        assign_strictly(model.head.named_weights(), head)
        return model

    @property
    def backbone(self) -> BiTBackbone:
        """The `BiTBackbone`."""
        return self.layers[0]

    @property
    def head(self) -> ZeroInitHead:
        """The `ZeroInitHead`."""
        return self.layers[1]

    def save_npz(self, path: str | os.PathLike, dtype: str = "float32") -> None:
        """Writes backbone and head in the authors' layout; see `BiTBackbone.save_npz`."""
        weights = self.backbone.named_weights() | self.head.named_weights()
        write_npz(path, weights, dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BiTClassifier":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("backbone", "head")
        }
        return cls(**parts, name=config["name"])


def has_finite_weights(model: keras.Model) -> bool:
    """Returns whether no weight is infinite or NaN.

    Compiled ReLUs turn NaN into 0, so that outputs and losses do not tell of every weight.
    """
    finite = [ops.all(ops.isfinite(weight)) for weight in model.weights]
    return bool(ops.all(ops.stack(finite)))


def compile_classifier(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Compiles `model` for one-hot labels, with `"loss"` and `"accuracy"` in its logs.

    The variables of optimizer and metrics are created here: TensorFlow would trace a first step
    that creates them a second time, and an optimizer without variables loads none from a
    checkpoint. The model must be built.

    Args:
        model: A built `keras.Model` with logits (batch, classes) as output.
        optimizer: Such as `keras_bit.HyperRule.optimizer()`.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras_bit.ZeroInitHead(2)])
    >>> keras_bit.compile_classifier(model, keras_bit.HyperRule(32, 100).optimizer())
    >>> model.optimizer.built
    True
    """
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        # Weighted: see `pipelines` on the test images that several devices share.
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)
