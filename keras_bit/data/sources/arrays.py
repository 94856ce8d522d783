"""Arrays in memory as an `ImageDataset`."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from keras_bit.core.arguments import check_boolean
from keras_bit.core.text import list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.dataset import (
    ImageDataset,
    Images,
    OrderedSplit,
    kind_and_constructor,
    median_size,
)
from keras_bit.data.sources.labels import class_names
from keras_bit.data.sources.selection import (
    Selection,
    stratified_split,
    warn_of_missing_labels,
)


class ArraySplit(OrderedSplit):
    """Images that lie in memory as `np.uint8` arrays of shape `(height, width, 3)`.

    They are named by `side`, the arrays they come from, and by their `indices` there.
    """

    def __init__(self, side: str, images: Images, labels: np.ndarray, indices: Iterable[int]):
        super().__init__((f"{side}/{index}" for index in indices), labels)
        self.images = images

    def _identity(self):
        for image in self.images:
            yield repr(image.shape).encode()
            yield image.tobytes()

    def _sources(self):
        return iter(self.images)

    def _try_transform(self, source, transform):
        return transform(np.asarray(source)), None


def array_dataset(
    images: Images,
    labels: npt.ArrayLike,
    test_images: Images | None,
    test_labels: npt.ArrayLike | None,
    label_names: Sequence[str] | None,
    selection: Selection,
    multi_label: bool | None = None,
) -> ImageDataset:
    """`ImageDataset.from_arrays`, which explains the arguments."""
    if multi_label is not None:
        check_boolean("multi_label", multi_label)
    sides = [_checked_side("images", images, "labels", labels)]
    if test_images is not None or test_labels is not None:
        sides.append(_checked_side("test_images", test_images, "test_labels", test_labels))
    all_labels, names = _checked_classes([labels for _, labels in sides], label_names, multi_label)
    if len(sides) == 1:
        ((images, _),), (ids,) = sides, all_labels
        train, test = (
            ArraySplit("train", [images[index] for index in part], ids[part], part)
            for part in stratified_split(ids, names, selection)
        )
    else:
        train, test = (
            ArraySplit(side, images, ids, range(len(ids)))
            for side, (images, _), ids in zip(("train", "test"), sides, all_labels, strict=True)
        )
    warn_of_missing_labels(train, test, names)
    if label_names is None and train.labels.ndim == 1:
        _warn_of_unused_ids(train.labels, len(names))
    image_size = median_size([image.shape[:2] for image in train.images])
    held_out = len(sides) == 1
    return ImageDataset(train, test, names, image_size, test_is_held_out=held_out)


def _warn_of_unused_ids(labels, classes):
    """Warns where ids are left out, as 0 is where somebody counts from 1."""
    if unused := sorted(set(range(classes)) - set(labels.tolist())):
        listed = list_some(list(map(str, unused)), 5)
        warn_caller(
            f"Class ids that no training image has: {listed}. The network gets an output for each "
            "number from 0 to the highest id."
        )


def _checked_classes(sides, label_names, multi_label):
    """Class ids, or multi-hot labels, of each side, and the names of the classes."""
    widths = {labels.shape[1:] for labels in sides}
    if len(widths) > 1:
        raise ValueError(
            "`labels` and `test_labels` must have the same form. Received: shapes "
            f"{' and '.join(str(labels.shape) for labels in sides)}"
        )
    images, (width,) = sum(map(len, sides)), widths
    if not width:
        if multi_label:
            raise ValueError(
                "`labels` must be 0 and 1 of shape (n, classes) where `multi_label` is set. "
                f"Received: labels of shape {sides[0].shape}"
            )
        return sides, class_names(label_names, int(max(labels.max() for labels in sides)), images)
    single = all(np.all(labels.sum(axis=1) == 1) for labels in sides)
    if multi_label is False and not single:
        raise ValueError(
            "`labels` must have a single 1 in each row where `multi_label` is False. "
            "Received: rows with none or several"
        )
    names = class_names(label_names, width[0] - 1, images)
    if len(names) != width[0]:
        raise ValueError(
            f"`label_names` must name each of the {width[0]} columns of `labels`. "
            f"Received: {len(names)} names"
        )
    if multi_label or not single:
        return sides, names
    return [labels.argmax(axis=1) for labels in sides], names


def _checked_side(images_name, images, labels_name, labels):
    """The images, and their labels as an array `(n,)` or `(n, classes)`."""
    if images is None or labels is None:
        raise ValueError(
            f"`{images_name}` and `{labels_name}` must be given together. "
            f"Received: {images_name if images is None else labels_name}=None"
        )
    images = _checked_images(images_name, images)
    return images, _checked_labels(labels_name, labels, len(images))


def _checked_images(argument, images):
    if not hasattr(images, "__getitem__") or isinstance(images, (str, dict)):
        kind, constructor = kind_and_constructor(images)
        raise TypeError(f"`{argument}` must be arrays. Received: {kind}. Use {constructor}.")
    if not len(images):
        raise ValueError(f"`{argument}` must hold at least one image. Received: none")
    if not (isinstance(images, np.ndarray) and images.ndim == 4):
        images = [np.asarray(image) for image in images]
    for index, image in enumerate(images):
        if image.dtype != np.uint8:
            raise TypeError(
                f"`{argument}` must be uint8 with values from 0 to 255. "
                f"Received: {argument}[{index}] of dtype {image.dtype}"
            )
        if image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"`{argument}` must hold RGB images of shape (height, width, 3); repeat the "
                f"channel of gray images. Received: {argument}[{index}] of shape {image.shape}"
            )
    return images


def _checked_labels(argument, labels, count):
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and len(labels) == count:
        if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
            raise ValueError(
                f"`{argument}` of shape (n, classes) must hold 0 and 1 only. "
                f"Received: {argument} of dtype {labels.dtype} with other values"
            )
        return labels.astype(np.uint8)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"`{argument}` must be integers. Received: dtype {labels.dtype}")
    if labels.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"`{argument}` must be one class id for each of the {count} images, or 0 and 1 of "
            f"shape ({count}, classes). Received: {argument} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"`{argument}` must count from 0. Received: {labels.min()}")
    return labels.reshape(count)
