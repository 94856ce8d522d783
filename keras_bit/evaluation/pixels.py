"""What a model gives for images of bytes."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_bit.layers.backbone import BiTBackbone

BYTES = 255
_CHANGING = (keras.layers.Rescaling, keras.layers.Normalization, keras.layers.Lambda)


def predict_pixels(
    model: keras.Model, images: np.ndarray, value_range: tuple[float, float] = (0, 1)
) -> np.ndarray:
    """Returns the outputs `(n, ...)`, float32, of a model that takes images of a `value_range`.

    Args:
        model: It has one output.
        images: uint8 `(n, height, width, 3)`.
        value_range: Of what the model takes.
    """
    low, high = value_range
    values = images.astype("float32") / np.float32(BYTES / (high - low)) + np.float32(low)
    outputs = keras.ops.convert_to_numpy(model.predict_on_batch(values))
    # Each replica of a `tf.distribute` strategy gives those of all images.
    return np.asarray(outputs, "float32")[: len(images)]


def are_probabilities(outputs: np.ndarray, multi_label: bool) -> bool:
    """Whether outputs are those of a sigmoid or a softmax, and no logits."""
    if not ((outputs >= 0) & (outputs <= 1)).all():
        return False
    if multi_label:
        return bool((outputs > 0).all())
    return bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))


def value_range_of(model: keras.Model) -> tuple[float, float]:
    """Returns the range of the images that a model takes: its backbone's, before any `Rescaling`.

    (0, 1) for a model without a `BiTBackbone`.

    Raises:
        ValueError: If something before the backbone changes the range in another way.
    """
    layers = list(_flat(model))
    before = list(itertools.takewhile(lambda layer: not isinstance(layer, BiTBackbone), layers))
    if len(before) == len(layers):
        return 0, 1
    low, high = layers[len(before)].value_range
    for layer in reversed(before):
        if _rescales_all_alike(layer):
            low, high = ((value - layer.offset) / layer.scale for value in (low, high))
        elif isinstance(layer, _CHANGING) or not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "`model_or_run` must take images in the `value_range` of its BiTBackbone. "
                f"Received: a model with {layer!r} before it. Leave that to the backbone: "
                "`BiTBackbone(value_range=(0, 255))`."
            )
    return low, high


def parts_of(model: keras.Model) -> list[Any]:
    """Returns layers, and operations of `keras.ops` in functional models, in the order of use."""
    is_sequential = isinstance(model, keras.Sequential)
    return model.layers if is_sequential else getattr(model, "operations", model.layers)


def _flat(part: Any) -> Iterator[Any]:
    """Yields the parts of a model, those of models in it in their places."""
    if not isinstance(part, keras.Model):
        yield part
        return
    for each in parts_of(part):
        yield from _flat(each)


def _rescales_all_alike(layer):
    is_rescaling = isinstance(layer, keras.layers.Rescaling)
    return is_rescaling and np.ndim(layer.scale) == np.ndim(layer.offset) == 0
