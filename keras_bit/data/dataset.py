"""Labelled images in a training and a test split, and the choice of what belongs to which."""

import hashlib
import numbers
import warnings
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from keras_bit.checks import check_integer
from keras_bit.data.images import attempt, decode_image, threaded_map

TEST_NAMES = ("test", "validation", "valid", "val")
_NAMED_IN_WARNING = 3


class Split(ABC):
    """One side of a data set: labelled images in a fixed order, read when they are asked for.

    Attributes:
        names: Tuple of `n` strings that tell the images apart: paths, or such as
            `"cats_vs_dogs/train/17"`.
        labels: Class ids, read-only `np.int32` array of shape `(n,)`.
        errors: Dict from an image's index to the reason why it could not be decoded.
    """

    def __init__(self, names, labels):
        self.names = tuple(names)
        self.labels = np.array(labels, np.int32)
        self.labels.flags.writeable = False
        self.errors = {}

    def __len__(self):
        return len(self.names)

    def __repr__(self):
        return f"<{type(self).__name__} of {len(self)} images>"

    @cached_property
    def fingerprint(self):
        """Hexadecimal digest of the images, their order and their labels."""
        digest = hashlib.blake2b(type(self).__name__.encode(), digest_size=16)
        digest.update(self.labels.astype("<i4").tobytes())
        for part in self._identity():
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def map(self, transform):
        """Yields `transform(image)` for every image, in index order.

        Images are read, decoded and transformed in threads ahead of time, within a bounded
        window. Closing the iterator early ends the threads.

        Args:
            transform: Function of one `np.uint8` array of shape `(height, width, 3)`, in which it
                must not write; called in several threads at once.

        Yields:
            What `transform` returns, or `None` where the image cannot be decoded; the reason is
            then in `errors[index]`.
        """
        return self.map_indexed(lambda index, image: transform(image))

    def map_indexed(self, transform, at_once=1):
        """`map` with a function of an image's index and the image.

        Args:
            transform: As for `map`, but called as `transform(index, image)`.
            at_once: Number of images that a thread takes together, which spares handing each of
                them over. The window of results that wait to be taken grows with it.

        Yields:
            As `map`.
        """

        def work(item):
            index, source = item
            image, reason = self._read(source)
            return (transform(index, image), None) if reason is None else (None, reason)

        with closing(threaded_map(work, enumerate(self._sources()), at_once)) as results:
            for index, (result, reason) in enumerate(results):
                if reason is None:
                    self.errors.pop(index, None)
                else:
                    self.errors[index] = reason
                yield result

    @abstractmethod
    def _identity(self):
        """Yields the bytes that, beside the labels, tell this split from others."""

    @abstractmethod
    def _sources(self):
        """Yields what `_read` takes, for every image in order."""

    def _read(self, source):
        """`(image, None)` or `(None, reason)`."""
        return attempt(decode_image, source)


class ArraySplit(Split):
    """Images that lie in memory as `np.uint8` arrays of shape `(height, width, 3)`."""

    def __init__(self, side, images, labels):
        super().__init__((f"{side}/{index}" for index in range(len(images))), labels)
        self._images = images

    def _identity(self):
        for image in self._images:
            yield repr(image.shape).encode()
            yield image.tobytes()

    def _sources(self):
        return iter(self._images)

    def _read(self, source):
        return source, None


class Found(NamedTuple):
    """An image whose header a scan could read.

    `key` is the path of its file or its place in the stream of a TFDS split; `identity` is what
    tells one state of a file from another.
    """

    name: str
    label: int
    size: tuple[int, int]
    key: str | int
    identity: str


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images in a training and a test split, and what is known of them.

    Made by `image_folder`, `tfds_images`, `cats_vs_dogs`, `digits` and `from_arrays`.

    Attributes:
        train: The training images, a split (see below).
        test: The test images, a split.
        label_names: Tuple of the classes' names; class `i` is called `label_names[i]`.
        image_size: `(height, width)` in pixels: medians over the training images, rounded down.
        left_out: Tuple of `(name, reason)` of what the source left out: unreadable files, images
            below a minimum edge, images outside the class folders.

    A split has `len`, `names`, `labels` (`np.int32`, shape `(n,)`), `fingerprint` (a hexadecimal
    string that changes when the images, their order or their labels change), `map(transform)`,
    which yields the transformed image of every index in order, `map_indexed`, whose function is
    given the index too, and `errors`, which says why they yielded `None` for an index.

    Example:

    >>> data = keras_bit.digits()
    >>> data.train_size, data.test_size, data.num_classes, data.image_size
    (1438, 359, 10, (32, 32))
    """

    train: Split
    test: Split
    label_names: tuple[str, ...]
    image_size: tuple[int, int]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def train_size(self):
        """Number of training images."""
        return len(self.train)

    @property
    def test_size(self):
        """Number of test images."""
        return len(self.test)

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.label_names)

    @classmethod
    def from_arrays(cls, images, labels, test_images, test_labels, label_names=None):
        """An `ImageDataset` over images that lie in memory. Nothing is copied.

        Args:
            images: Training images: a `np.uint8` array of shape `(n, height, width, 3)`, or a
                sequence of `(height, width, 3)` arrays of any sizes.
            labels: Class ids from 0, integers of shape `(n,)` or `(n, 1)`.
            test_images: Test images, like `images`.
            test_labels: Their class ids, like `labels`.
            label_names: Names of the classes. Default: the ids as strings.

        Returns:
            An `ImageDataset`.

        Raises:
            TypeError: Images that are not uint8, labels that are not integers.
            ValueError: Wrong shapes, numbers of labels or ids; fewer than two classes.

        Example:

        ```python
        import numpy as np
        import keras_bit

        images = np.zeros((10, 32, 32, 3), np.uint8)
        labels = np.arange(10) % 2
        data = keras_bit.ImageDataset.from_arrays(
            images, labels, images[:4], labels[:4], label_names=("even", "odd")
        )
        print(data.train_size, data.image_size)  # 10 (32, 32)
        ```
        """
        images = _checked_images("images", images)
        test_images = _checked_images("test_images", test_images)
        labels = _checked_labels("labels", labels, len(images))
        test_labels = _checked_labels("test_labels", test_labels, len(test_images))
        highest = int(max(labels.max(), test_labels.max()))
        if label_names is None:
            label_names = [str(label) for label in range(highest + 1)]
        if len(label_names) < 2:
            raise ValueError(f"At least two classes are needed. Received: {list(label_names)}")
        if highest >= len(label_names):
            raise ValueError(
                "`label_names` must name every class. "
                f"Received: {len(label_names)} names, class ids up to {highest}"
            )
        return cls(
            train=ArraySplit("train", images, labels),
            test=ArraySplit("test", test_images, test_labels),
            label_names=tuple(label_names),
            image_size=_median_size([image.shape[:2] for image in images]),
        )


def _checked_images(argument, images):
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
                f"channel of grey images. Received: {argument}[{index}] of shape {image.shape}"
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


def _median_size(sizes):
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)


class Selection(NamedTuple):
    """The arguments, common to all sources, that choose among the images."""

    validation_split: float
    seed: int
    min_edge: int
    examples_per_class: int | None

    def checked(self):
        fraction = self.validation_split
        if not isinstance(fraction, numbers.Real) or not 0 < fraction < 1:
            raise ValueError(
                "`validation_split` must be a number between 0 and 1, both excluded. "
                f"Received: validation_split={fraction!r}"
            )
        check_integer("seed", self.seed, 0)
        check_integer("min_edge", self.min_edge, 0)
        if self.examples_per_class is not None:
            check_integer("examples_per_class", self.examples_per_class, 1)
        return self


def _shuffled_classes(labels, seed):
    """Yields `(label, indices)` for every class that occurs, its indices in shuffled order."""
    labels = np.asarray(labels)
    # RandomState is the one stream that NumPy promises never to change, on any machine.
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    order = generator.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    present, counts = np.unique(labels, return_counts=True)
    groups = np.split(by_class, np.cumsum(counts)[:-1])
    return zip(present.tolist(), groups, strict=True)


def divide(labels, label_names, selection):
    """Indices of the training and of the test images, each class divided alike."""
    train, test = [], []
    for label, indices in _shuffled_classes(labels, selection.seed):
        if len(indices) < 2:
            raise ValueError(
                "Every class must have at least two images, one for training and one for the test "
                f"split. Received: class {label_names[label]!r} with one"
            )
        held_out = int(len(indices) * selection.validation_split + 0.5)
        held_out = min(max(held_out, 1), len(indices) - 1)
        test.append(indices[:held_out])
        train.append(indices[held_out:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def few_per_class(labels, label_names, selection):
    """Indices of `examples_per_class` images of every class; of all where that is None."""
    count = selection.examples_per_class
    if count is None:
        return np.arange(len(labels))
    classes = dict(_shuffled_classes(labels, selection.seed))
    for label, name in enumerate(label_names):
        available = len(classes.get(label, ()))
        if available < count:
            raise ValueError(
                "`examples_per_class` must not exceed the training images of any class. Received: "
                f"examples_per_class={count}, class {name!r} with {available} training images"
            )
    return np.sort(np.concatenate([indices[:count] for indices in classes.values()]))


def labels_of(found):
    return [image.label for image in found]


def make_dataset(found, test_found, make_train, make_test, label_names, left_out, selection):
    """The `ImageDataset` of what was found; where `test_found` is None, a part of `found`."""
    if test_found is None:
        kept, held_out = divide(labels_of(found), label_names, selection)
        found, test_found = [found[i] for i in kept], [found[i] for i in held_out]
    found = [found[i] for i in few_per_class(labels_of(found), label_names, selection)]
    _warn_of_left_out(left_out)
    return ImageDataset(
        train=make_train(found),
        test=make_test(test_found),
        label_names=tuple(label_names),
        image_size=_median_size([image.size for image in found]),
        left_out=tuple(left_out),
    )


def sift(results, min_edge):
    """Separates inspected images `(found, name, reason)` into those found and those left out."""
    kept, left_out = [], []
    for found, name, reason in results:
        if reason is None and min(found.size) < min_edge:
            height, width = found.size
            reason = f"{height}x{width} pixels, an edge below min_edge={min_edge}"
        if reason is None:
            kept.append(found)
        else:
            left_out.append((name, reason))
    return kept, left_out


def _warn_of_left_out(left_out):
    if not left_out:
        return
    first = "; ".join(f"{name} ({reason})" for name, reason in left_out[:_NAMED_IN_WARNING])
    more = "; ..." if len(left_out) > _NAMED_IN_WARNING else ""
    warnings.warn(
        f"Left out: {len(left_out)}, listed in `left_out` of the ImageDataset. {first}{more}",
        stacklevel=4,
    )
