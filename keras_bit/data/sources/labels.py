"""The names of the classes, checked against the class ids of the images."""

from collections.abc import Iterable
from typing import Any

import numpy as np

UNNAMED_CLASSES = 1_000  # so many may be without names, however few the images are


def class_names(label_names: Iterable[str] | None, highest: int, images: int) -> tuple[str, ...]:
    """The names of all classes: `label_names`, or the ids as strings where that is `None`.

    Args:
        label_names: Strings that differ.
        highest: The highest class id of the images.
        images: Their number.

    Raises:
        TypeError: Names that are not strings.
        ValueError: Names that are empty or equal, fewer than two, fewer than the class ids; ids far
            above the number of images, without names.

    Example:

    >>> from keras_bit.data.sources.labels import class_names
    >>> class_names(None, highest=2, images=50)
    ('0', '1', '2')
    """
    if label_names is not None:
        names = check_label_names(label_names)
    elif highest < max(images, UNNAMED_CLASSES):
        names = tuple(map(str, range(highest + 1)))
    else:
        raise ValueError(
            "Class ids without `label_names` must be below the number of images, or "
            f"{UNNAMED_CLASSES:,}, since the network gets an output for every number up to the "
            f"highest. Received: {images} images, class ids up to {highest}. Number the classes "
            "from 0 on (`np.unique(labels, return_inverse=True)`), or give `label_names`."
        )
    if len(names) < 2:
        raise ValueError(f"At least two classes are needed. Received: {list(names)}")
    if highest >= len(names):
        raise ValueError(
            "`label_names` must name every class. "
            f"Received: {len(names)} names, class ids up to {highest}"
        )
    return names


def multi_hot(ids: Iterable[int], classes: int) -> np.ndarray:
    """The labels of an image as uint8 `(classes,)`: 1 for each of `ids`, else 0.

    Example:

    >>> from keras_bit.data.sources.labels import multi_hot
    >>> multi_hot((0, 2), 4).tolist()
    [1, 0, 1, 0]
    """
    row = np.zeros(classes, np.uint8)
    row[list(ids)] = 1
    return row


def check_label_names(label_names: Iterable[Any]) -> tuple[str, ...]:
    """`label_names` as a tuple of plain strings; raises as `class_names` does."""
    if isinstance(label_names, (str, bytes)) or not isinstance(label_names, Iterable):
        raise TypeError(
            "`label_names` must be a sequence of strings, such as ('cat', 'dog'). "
            f"Received: label_names={label_names!r}"
        )
    names = tuple(label_names)
    seen = set()
    for index, name in enumerate(names):
        received = f"Received: label_names[{index}]={name!r}"
        if not isinstance(name, str):
            raise TypeError(f"`label_names` must be strings. {received}")
        if not name.strip():
            raise ValueError(f"`label_names` must not be empty. {received}")
        if name in seen:
            raise ValueError(f"`label_names` must differ. {received} for a second time")
        seen.add(name)
    return tuple(map(str, names))
