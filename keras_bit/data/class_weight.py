"""How much the images of each class count in the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_bit.core.arguments import is_number
from keras_bit.data.dataset import ImageDataset, class_counts

BALANCED = "balanced"
ClassWeight = str | Mapping[int | str, float] | Sequence[float] | np.ndarray


def check_class_weight(class_weight: Any) -> None:
    """Raises where `class_weight` is wrong whatever the data."""
    if isinstance(class_weight, np.ndarray):  # as scikit-learn's `compute_class_weight` returns it
        class_weight = class_weight.tolist()
    balanced = isinstance(class_weight, str) and class_weight == BALANCED
    form = class_weight is None or balanced or isinstance(class_weight, Mapping)
    if not form and (isinstance(class_weight, str) or not isinstance(class_weight, Sequence)):
        raise ValueError(
            '`class_weight` must be "balanced", a dict from class ids or names to numbers, or a '
            f"number for each class. Received: class_weight={class_weight!r}"
        )
    if class_weight is None or isinstance(class_weight, str):
        return
    values = class_weight.values() if isinstance(class_weight, Mapping) else class_weight
    if not all(is_number(value) and value >= 0 for value in values):
        raise ValueError(
            "`class_weight` must have finite numbers of at least 0. "
            f"Received: class_weight={class_weight!r}"
        )


def resolve_class_weight(
    class_weight: ClassWeight | None, data: ImageDataset
) -> tuple[float, ...] | None:
    """Returns the weight of each class, or `None` where all images count alike.

    Args:
        class_weight: `"balanced"` for `images / (classes * images of the class)`, as in
            scikit-learn, so that each class counts the same in all and the mean over the training
            images is 1; a dict from class ids or names to weights, 1 for those that it lacks; or a
            sequence of all weights.
        data: The data set.

    Raises:
        ValueError: If it is something else, or an image has several labels.

    Example:

    >>> from keras_bit.data.class_weight import resolve_class_weight
    >>> images = np.zeros((8, 32, 32, 3), np.uint8)
    >>> labels = [0, 0, 0, 0, 0, 0, 1, 1]
    >>> data = keras_bit.ImageDataset.from_arrays(images, labels, images, labels, ("cat", "dog"))
    >>> [round(weight, 2) for weight in resolve_class_weight("balanced", data)]
    [0.67, 2.0]
    >>> resolve_class_weight({"dog": 3}, data)
    (1.0, 3.0)
    """
    check_class_weight(class_weight)
    if class_weight is None:
        return None
    if data.multi_label:
        raise ValueError(
            "`class_weight` must be omitted where an image has several labels: their thresholds "
            f"are chosen one by one. Received: class_weight={class_weight!r}"
        )
    if isinstance(class_weight, str):
        counts = class_counts(data.train.labels, data.num_classes)
        present = np.maximum(counts, 1)
        weights = np.where(counts, data.train_size / (np.count_nonzero(counts) * present), 1.0)
        return tuple(weights.tolist())
    if isinstance(class_weight, Mapping):
        return _from_mapping(class_weight, data.label_names)
    if len(class_weight) != data.num_classes:
        raise ValueError(
            f"`class_weight` must have a number for each of the {data.num_classes} classes. "
            f"Received: {len(class_weight)}"
        )
    return tuple(map(float, class_weight))


def _from_mapping(class_weight, label_names):
    ids = {name: index for index, name in enumerate(label_names)}
    weights = [1.0] * len(label_names)
    for key, value in class_weight.items():
        index = ids.get(key, key)
        if isinstance(index, bool) or index not in range(len(label_names)):
            raise ValueError(
                "`class_weight` must have ids or names of classes. "
                f"Received: {key!r}; classes: {list(label_names)[:20]}"
            )
        weights[int(index)] = float(value)
    return tuple(weights)
