"""Arrays in memory as an `ImageDataset`."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from keras_bit.data.dataset import ImageDataset, Images, OrderedSplit, kind_and_door, median_size
from keras_bit.data.sources.labels import class_names
from keras_bit.data.sources.selection import Selection, stratified_split


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
) -> ImageDataset:
    """`ImageDataset.from_arrays`, which explains the arguments."""
    images, ids = _checked_side("images", images, "labels", labels)
    if test_images is None and test_labels is None:
        names = class_names(label_names, int(ids.max()), len(ids))
        train, test = (
            ArraySplit("train", [images[index] for index in part], ids[part], part)
            for part in stratified_split(ids, names, selection)
        )
    else:
        sides = "test_images", test_images, "test_labels", test_labels
        test_images, test_ids = _checked_side(*sides)
        highest = int(max(ids.max(), test_ids.max()))
        names = class_names(label_names, highest, len(ids) + len(test_ids))
        train = ArraySplit("train", images, ids, range(len(ids)))
        test = ArraySplit("test", test_images, test_ids, range(len(test_ids)))
    return ImageDataset(train, test, names, median_size([i.shape[:2] for i in train.images]))


def _checked_side(images_name, images, labels_name, labels):
    """The images, and their class ids as an array `(n,)`."""
    if images is None or labels is None:
        raise ValueError(
            f"`{images_name}` and `{labels_name}` must be given together. "
            f"Received: {images_name if images is None else labels_name}=None"
        )
    images = _checked_images(images_name, images)
    return images, _checked_labels(labels_name, labels, len(images))


def _checked_images(argument, images):
    if not hasattr(images, "__getitem__") or isinstance(images, (str, dict)):
        kind, door = kind_and_door(images)
        raise TypeError(f"`{argument}` must be arrays. Received: {kind}. Use {door}.")
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
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"`{argument}` must be integers. Received: dtype {labels.dtype}")
    if labels.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"`{argument}` must be one class id for each of the {count} images (of one-hot "
            f"labels take the argmax). Received: {argument} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"`{argument}` must count from 0. Received: {labels.min()}")
    return labels.reshape(count)
