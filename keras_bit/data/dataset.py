"""Labeled images in a training and a test split."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_bit.data.images import decode_image, threaded_map, try_read

Images = np.ndarray | Sequence[np.ndarray]


class Split(ABC):
    """One side of a data set: labeled images in a fixed order, read when they are asked for.

    Attributes:
        names: Tuple of `n` strings that tell the images apart: paths, or such as
            `"cats_vs_dogs/train/17"`.
        labels: Class ids, read-only `np.int32` array of shape `(n,)`.
        errors: Dict from an image's index to why the last `map` could not decode it.
    """

    _decode: Callable[[Any], np.ndarray] = staticmethod(decode_image)

    def __init__(self, names: Iterable[str], labels: npt.ArrayLike):
        self.names = tuple(names)
        self.labels = np.array(labels, np.int32)
        self.labels.flags.writeable = False
        self.errors: dict[int, str] = {}

    def __len__(self):
        return len(self.names)

    def __repr__(self):
        return f"<{type(self).__name__} of {len(self)} images>"

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the images, their order and their labels."""
        digest = hashlib.blake2b(type(self).__name__.encode(), digest_size=16)
        digest.update(self.labels.astype("<i4").tobytes())
        for part in self._identity():
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def map(self, transform: Callable[[np.ndarray], Any]) -> Generator[Any, None, None]:
        """Yields `transform(image)` for every image in order, `None` where it cannot be decoded.

        `transform` is called in several threads, ahead of time within a bounded window, with
        `np.uint8` arrays of shape `(height, width, 3)` in which it must not write. Closing the
        iterator early ends the threads.
        """
        return self.map_indexed(lambda index, image: transform(image))

    def map_indexed(
        self, transform: Callable[[int, np.ndarray], Any], chunk_size: int = 1
    ) -> Generator[Any, None, None]:
        """`map` with `transform(index, image)`; a thread takes `chunk_size` images together."""

        def work(item):
            index, source = item
            image, reason = try_read(self._decode, source)
            return (None, reason) if image is None else (transform(index, image), None)

        with closing(threaded_map(work, enumerate(self._sources()), chunk_size)) as results:
            for index, (result, reason) in enumerate(results):
                self.errors.pop(index, None)
                if reason is not None:
                    self.errors[index] = reason
                yield result

    @abstractmethod
    def _identity(self) -> Iterator[bytes]:
        """Yields the bytes that, beside the labels, tell this split from others."""

    @abstractmethod
    def _sources(self) -> Iterator[Any]:
        """Yields what `_decode` takes, for every image in order."""


class ArraySplit(Split):
    """Images that lie in memory as `np.uint8` arrays of shape `(height, width, 3)`."""

    _decode = staticmethod(np.asarray)

    def __init__(self, side: str, images: Images, labels: np.ndarray):
        super().__init__((f"{side}/{index}" for index in range(len(images))), labels)
        self._images = images

    def _identity(self):
        for image in self._images:
            yield repr(image.shape).encode()
            yield image.tobytes()

    def _sources(self):
        return iter(self._images)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labeled images in a training and a test split, from `image_folder` and its like.

    Attributes:
        train, test: The images of each side, a `keras_bit.data.dataset.Split` with `len`, `names`,
            `labels`, `fingerprint`, `map(transform)`, `map_indexed(transform)` and `errors`.
        label_names: Tuple of the classes' names; class `i` is called `label_names[i]`.
        image_size: `(height, width)` in pixels: medians over the training images, rounded down.
        skipped: Tuple of `(name, reason)` of what the source skipped: unreadable files, images
            below a minimum edge, images outside the class folders.

    Example:

    >>> data = keras_bit.digits()
    >>> data.train_size, data.test_size, data.num_classes, data.image_size
    (1438, 359, 10, (32, 32))
    """

    train: Split
    test: Split
    label_names: tuple[str, ...]
    image_size: tuple[int, int]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.test)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @classmethod
    def from_arrays(
        cls,
        images: Images,
        labels: npt.ArrayLike,
        test_images: Images,
        test_labels: npt.ArrayLike,
        label_names: Sequence[str] | None = None,
    ) -> "ImageDataset":
        """An `ImageDataset` over images that lie in memory. Nothing is copied.

        Args:
            images: Training images: a `np.uint8` array of shape `(n, height, width, 3)`, or a
                sequence of `(height, width, 3)` arrays of any sizes.
            labels: Class ids from 0, integers of shape `(n,)` or `(n, 1)`.
            test_images, test_labels: The same for testing.
            label_names: Names of the classes. Default: the ids as strings.

        Raises:
            TypeError: Images that are not uint8, labels that are not integers.
            ValueError: Wrong shapes, numbers of labels or ids; fewer than two classes.

        Example:

        >>> images, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10) % 2
        >>> data = keras_bit.ImageDataset.from_arrays(images, labels, images[:4], labels[:4])
        >>> data.train_size, data.image_size
        (10, (32, 32))
        """
        images = _checked_images("images", images)
        test_images = _checked_images("test_images", test_images)
        train_ids = _checked_labels("labels", labels, len(images))
        test_ids = _checked_labels("test_labels", test_labels, len(test_images))
        highest = int(max(train_ids.max(), test_ids.max()))
        if label_names is None:
            label_names = [str(label) for label in range(highest + 1)]
        if len(label_names) < 2:
            raise ValueError(f"At least two classes are needed. Received: {list(label_names)}")
        if highest >= len(label_names):
            raise ValueError(
                "`label_names` must name every class. "
                f"Received: {len(label_names)} names, class ids up to {highest}"
            )
        train = ArraySplit("train", images, train_ids)
        test = ArraySplit("test", test_images, test_ids)
        image_size = median_size([image.shape[:2] for image in images])
        return cls(train, test, tuple(label_names), image_size)


def median_size(sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Medians of some `(height, width)`, rounded down."""
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)


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
