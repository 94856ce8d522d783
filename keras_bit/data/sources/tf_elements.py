"""What a `tf.data.Dataset` of labeled images yields: its form, its values, its labels."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_bit.core.arguments import is_number
from keras_bit.data.dataset import is_tf_dataset, kind_and_constructor

BYTE_RANGE = 0.0, 255.0
UNIT_RANGE = 0.0, 1.0
ROUNDING = 1e-3  # of the value range: so far beyond its ends values may lie, by rounding
AMBIGUOUS = 2.0  # a largest value below that and above 1 fits neither range


def check_dataset_form(side: str, dataset: Any) -> None:
    """Raises unless `dataset` is finite and yields `(image, label)`, as far as its spec tells.

    `side` is the argument, `"train"` or `"test"`.
    """
    if not is_tf_dataset(dataset):
        kind, constructor = kind_and_constructor(dataset)
        raise TypeError(f"`{side}` must be a tf.data.Dataset. Received: {kind}. Use {constructor}.")
    import tensorflow as tf

    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{side}` must end. Received: a data set that repeats forever. Leave out `repeat`: "
            "the rule sets the length of training."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            f"`{side}` must yield pairs (image, label). Received: {_form(spec)}. {_advice(spec)}"
        )
    if not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise ValueError(
            f"`{side}` must yield pairs of tensors. Received: {spec}. Of ragged batches take the "
            "images one by one (`unbatch`)."
        )
    _check_types(side, *(part.dtype for part in spec))
    if spec[0].shape.rank is not None:
        _check_shape(side, spec[0].shape.as_list())


def labeled_images(side: str, dataset: Any) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields `(number, image, label)` of every example, of single ones as of batches."""
    number = 0
    for images, labels in dataset.as_numpy_iterator():
        if images.ndim != 4:
            images, labels = [images], [labels]
        elif np.shape(labels)[:1] != (len(images),):
            raise ValueError(
                f"`{side}` must yield a label for each image of a batch. Received: images of shape "
                f"{images.shape}, labels of shape {np.shape(labels)}"
            )
        for image, label in zip(images, labels, strict=True):
            yield number, image, np.asarray(label)
            number += 1


def check_image(side: str, number: int, image: np.ndarray) -> None:
    """Raises unless `image` is an RGB image."""
    _check_shape(side, image.shape, f"example {number}, ")
    if not image.size:
        raise ValueError(
            f"`{side}` must hold images of at least one pixel. Received: example {number} of shape "
            f"{image.shape}"
        )


def extremes(side: str, number: int, image: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value of an image; raises where one is not finite."""
    lowest, highest = float(image.min()), float(image.max())
    if not math.isfinite(lowest) or not math.isfinite(highest):
        raise ValueError(
            f"`{side}` must hold images of finite values. "
            f"Received: example {number} with NaN or infinite values"
        )
    return lowest, highest


Label = int | tuple[int, ...]  # class id, or the ids of all labels of an image


def label_of(
    side: str, number: int, label: np.ndarray, multi_label: bool
) -> tuple[Label, int | None]:
    """The class of a label, or all of them; and of how many, where it is one-hot or multi-hot."""
    return _label_ids(side, number, label) if multi_label else _class_id(side, number, label)


def _label_ids(side, number, label):
    if label.ndim != 1 or label.size < 2 or not np.isin(label, (0, 1)).all():
        raise ValueError(
            f"`{side}` must hold labels of shape (classes,) with 0 and 1 only, as `multi_label` is "
            f"set. Received: example {number} with the label {_shown(label)}"
        )
    return tuple(np.flatnonzero(label).tolist()), label.size


def _class_id(side, number, label):
    if label.ndim == 1 and label.size > 1:
        hot = np.flatnonzero(label)
        if len(hot) != 1 or label[hot[0]] != 1:
            raise ValueError(
                f"`{side}` must hold images of one class each: class ids, or one-hot labels with a "
                f"single 1. Received: example {number} with the label {_shown(label)}. Leave out "
                "MixUp, CutMix and label smoothing. Where images have several labels, set "
                "`multi_label`."
            )
        return int(hot[0]), label.size
    if label.shape not in ((), (1,)):
        raise ValueError(
            f"`{side}` must hold labels of shape (), (1,) or (classes,) for each image. "
            f"Received: example {number} with a label of shape {label.shape}"
        )
    value = label.item()
    if not (value >= 0 and float(value).is_integer()):  # also where it is NaN
        raise ValueError(
            f"`{side}` must hold class ids that count from 0. "
            f"Received: example {number} with the label {value}"
        )
    return int(value), None


def digest_of(image: np.ndarray, label: Label) -> bytes:
    """Tells images with their labels apart."""
    head = f"{image.dtype.name} {image.shape} {label} "
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).view(np.uint8).data)
    return digest.digest()


def check_value_range(value_range: Any) -> tuple[float, float]:
    """`value_range` as two floats; raises unless they are (black, white)."""
    pair = tuple(value_range) if isinstance(value_range, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(is_number, pair)) or pair[0] >= pair[1]:
        raise ValueError(
            "`value_range` must be a pair (black, white) of numbers, the first one smaller. "
            f"Received: value_range={value_range!r}"
        )
    return float(pair[0]), float(pair[1])


def range_of_floats(highest: float) -> tuple[float, float]:
    """The range of float images whose largest value over the whole data set is `highest`."""
    if highest <= 1 + ROUNDING:
        return UNIT_RANGE
    if highest < AMBIGUOUS:
        raise ValueError(
            "`value_range` must be given for these images: values of images in [0, 1] are at most "
            "1, and those of images in [0, 255] reach more than 2. "
            f"Received: a largest value of {highest:g}"
        )
    return BYTE_RANGE


def check_value(side: str, number: int, value: float, value_range: tuple[float, float]) -> None:
    """Raises where a value lies outside the range."""
    low, high = value_range
    slack = ROUNDING * (high - low)
    if not low - slack <= value <= high + slack:
        raise ValueError(
            f"`{side}` must hold images with values in [{low:g}, {high:g}]. Received: example "
            f"{number} with the value {value:g}. Give another `value_range=(black, white)`, such "
            "as (-1, 1), or change the images."
        )


def to_bytes(image: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """The image, whose values lie in the range, as uint8: black 0, white 255, rounded."""
    if image.dtype == np.uint8 and value_range == BYTE_RANGE:
        return image
    low, high = value_range
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def _form(spec):
    if isinstance(spec, dict):
        return f"a dict of {list(spec)}"
    return f"{len(spec)} parts" if isinstance(spec, tuple) else f"elements {spec}"


def _advice(spec):
    if isinstance(spec, dict):
        return (
            "Pass `as_supervised=True` to `tfds.load`, or choose the two: "
            '`dataset.map(lambda x: (x["image"], x["label"]))`.'
        )
    if isinstance(spec, tuple) and len(spec) == 3:
        return "Without weights: `dataset.map(lambda image, label, weight: (image, label))`."
    return "Labels are needed; Keras leaves them out with `label_mode=None`."


def _check_types(side, image, label):
    if not (image.is_integer or image.is_floating):
        raise TypeError(
            f"`{side}` must hold images of uint8 or floats. Received: dtype {image.name}. Decode "
            "files with `tf.io.decode_image(..., expand_animations=False)`."
        )
    if not (label.is_integer or label.is_floating or label.is_bool):
        raise TypeError(
            f"`{side}` must hold labels that are numbers, class ids from 0 or one-hot. "
            f"Received: dtype {label.name}. `tf.keras.layers.StringLookup` numbers strings."
        )


def _check_shape(side, shape, where=""):
    if len(shape) not in (3, 4) or shape[-1] not in (3, None):
        raise ValueError(
            f"`{side}` must hold RGB images of shape (height, width, 3), single or in batches. "
            f"Received: {where}shape {tuple(shape)}. Give gray images three channels: "
            "`tf.image.grayscale_to_rgb`."
        )


def _shown(label):
    return np.array2string(label, threshold=8, precision=3)
