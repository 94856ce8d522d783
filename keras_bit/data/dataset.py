"""Labeled images in a training and a test split."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_bit.data.threads import threaded_map

if TYPE_CHECKING:
    import tensorflow as tf

Images = np.ndarray | Sequence[np.ndarray]


class Split(ABC):
    """One side of a data set: labeled images in a fixed order, read when they are asked for.

    Attributes:
        names: Tuple of `n` strings that tell the images apart: paths, or such as
            `"cats_vs_dogs/train/17"`.
        labels: Read-only array: class ids, `np.int32` of shape `(n,)`; or, where an image has
            several labels, `np.uint8` of shape `(n, classes)` with 1 for each of them, else 0.
        errors: Dict from an image's index to why the last `map` could not decode it, or what of it
            was damaged.
    """

    def __init__(self, names: Iterable[str], labels: npt.ArrayLike):
        self.names = tuple(names)
        labels = np.asarray(labels)
        self.labels = np.array(labels, np.uint8 if labels.ndim == 2 else np.int32)
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
        digest.update(label_bytes(self.labels))
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

    @abstractmethod
    def map_indexed(
        self,
        transform: Callable[[int, np.ndarray], Any],
        chunk_size: int = 1,
        indices: range | None = None,
    ) -> Generator[Any, None, None]:
        """`map` with `transform(index, image)`; a thread takes `chunk_size` images together.

        With `indices` it is that of these images only; no other one is decoded.
        """

    @abstractmethod
    def _identity(self) -> Iterator[bytes]:
        """Yields the bytes that, beside the labels, tell this split from others."""


class OrderedSplit(Split):
    """Images that their source gives in the order of the split, encoded or not."""

    def map_indexed(
        self,
        transform: Callable[[int, np.ndarray], Any],
        chunk_size: int = 1,
        indices: range | None = None,
    ) -> Generator[Any, None, None]:
        indices = range(len(self)) if indices is None else indices

        def work(item):
            index, source = item
            return self._try_transform(source, partial(transform, index))

        ends = indices.start, indices.stop, indices.step
        sources = islice(enumerate(self._sources()), *ends)
        with closing(threaded_map(work, sources, chunk_size)) as results:
            for index, (result, reason) in zip(indices, results, strict=True):
                self.errors.pop(index, None)
                if reason is not None:
                    self.errors[index] = reason
                yield result

    @abstractmethod
    def _try_transform(
        self, source: Any, transform: Callable[[np.ndarray], Any]
    ) -> tuple[Any, str | None]:
        """`(transform(image), None)`, or what `images.try_transform` returns of faulty ones."""

    @abstractmethod
    def _sources(self) -> Iterator[Any]:
        """Yields what `_try_transform` takes, for every image in order."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labeled images in a training and a test split, from `image_folder` and its like.

    Attributes:
        train, test: The images of each side, a `keras_bit.data.dataset.Split` with `len`, `names`,
            `labels`, `fingerprint`, `map(transform)`, `map_indexed(transform)` and `errors`.
        label_names: Tuple of the classes' names; class `i` is called `label_names[i]`.
        multi_label: Whether an image has any number of labels, none to all, instead of one class.
        image_size: `(height, width)` in pixels: medians over the training images, rounded down.
        skipped: Tuple of `(name, reason)` of what the source skipped: unreadable files, images
            below a minimum edge, images outside the class folders.
        test_is_held_out: Whether the test images were a part of the source's training images, and
            not given as such.

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
    test_is_held_out: bool = False

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

    @property
    def multi_label(self) -> bool:
        """Whether an image has any number of labels instead of one class."""
        return self.train.labels.ndim == 2

    @classmethod
    def from_arrays(
        cls,
        images: Images,
        labels: npt.ArrayLike,
        test_images: Images | None = None,
        test_labels: npt.ArrayLike | None = None,
        label_names: Sequence[str] | None = None,
        *,
        validation_split: float = 0.1,
        seed: int = 0,
        multi_label: bool | None = None,
    ) -> "ImageDataset":
        """An `ImageDataset` over images that lie in memory. Nothing is copied.

        Args:
            images: Training images: a `np.uint8` array of shape `(n, height, width, 3)`, or a
                sequence of `(height, width, 3)` arrays of any sizes.
            labels: Class ids from 0, integers of shape `(n,)` or `(n, 1)`; or numbers 0 and 1 of
                shape `(n, classes)`, one-hot or, for images of several labels, multi-hot.
            test_images, test_labels: The same for testing. Default: a part of the training images,
                named by its place among them (`"train/17"`).
            label_names: Names of the classes. Default: the ids as strings; they must then be below
                the number of images, or 1,000.
            validation_split: Fraction of each class that becomes its test images where none are
                given (rounded; at least one image stays on each side).
            seed: Non-negative integer; chooses these test images.
            multi_label: Whether the columns of `labels` are labels that an image can have any
                number of, none included. By default they are unless each row has a single 1.

        Raises:
            TypeError: Images that are not uint8, labels that are not integers, names that are not
                strings.
            ValueError: Wrong shapes, numbers of labels or ids, a name that is empty or given twice;
                fewer than two classes; a class with one image only, where test images are held out;
                one of `test_images` and `test_labels` without the other.

        Example:

        >>> images, labels = np.zeros((10, 32, 32, 3), np.uint8), np.arange(10) % 2
        >>> data = keras_bit.ImageDataset.from_arrays(images, labels, images[:4], labels[:4])
        >>> data.train_size, data.image_size
        (10, (32, 32))
        >>> data = keras_bit.ImageDataset.from_arrays(images, labels, validation_split=0.2)
        >>> data.train_size, data.test_size
        (8, 2)
        >>> labels = np.stack([np.arange(10) % 2, np.arange(10) % 3 == 0], axis=1)
        >>> data = keras_bit.ImageDataset.from_arrays(images, labels, label_names=("cat", "indoor"))
        >>> data.multi_label, data.train.labels.shape
        (True, (9, 2))
        """
        from keras_bit.data.sources.arrays import array_dataset
        from keras_bit.data.sources.selection import Selection

        sides = images, labels, test_images, test_labels
        selection = Selection(validation_split, seed)
        return array_dataset(*sides, label_names, selection, multi_label)

    @classmethod
    def from_tf_data(
        cls,
        train: "tf.data.Dataset",
        test: "tf.data.Dataset | None" = None,
        *,
        label_names: Sequence[str] | None = None,
        validation_split: float = 0.1,
        seed: int = 0,
        min_edge: int = 0,
        examples_per_class: int | None = None,
        value_range: tuple[float, float] | None = None,
        multi_label: bool = False,
    ) -> "ImageDataset":
        """An `ImageDataset` over a `tf.data.Dataset` of pairs `(image, label)`.

        The data set is read once here, for sizes, labels and a hash of every image and its label,
        and again by `map`, as a stream: no image is held in memory. It may shuffle again each time.
        Images are told, ordered and named by their hashes, so that the split into training and test
        images depends on the images and `seed` only. But it must yield the same images whenever it
        is read: leave out random augmentation (the rule augments), `repeat` and MixUp.

        Args:
            train: Elements `(image, label)`, single or in batches: images `(height, width, 3)`,
                `(batch, height, width, 3)` in batches, uint8 or float; labels class ids, `()` or
                `(1,)`, or one-hot `(classes,)` (with `multi_label` multi-hot), of any type of
                number.
            test: The same for testing. Default: a part of `train`.
            label_names: Names of the classes. Default: the `class_names` of `train`, as
                `keras.utils.image_dataset_from_directory` sets them, else the ids as strings; these
                must then be below the number of images, or 1,000.
            validation_split: Fraction of each class that becomes its test images where `test` is
                not given (rounded; at least one image stays on each side).
            seed, min_edge, examples_per_class: As for `image_folder`.
            value_range: `(black, white)`, the values between which all images lie. Default: 0 and
                255 for integers; for floats 0 and 1 where the largest value over all of them,
                training and test, is at most 1, and 0 and 255 where it is 2 or more. Images become
                uint8, rounded.
            multi_label: Whether labels are multi-hot: 0 and 1 of shape `(classes,)`, any number
                of them 1.

        Raises:
            TypeError: `train` or `test` is something else than a `tf.data.Dataset`; images or
                labels that are not numbers, names that are not strings.
            ValueError: Elements of another form, gray images, soft or multi-hot labels, values
                outside the range, a data set that is empty or never ends, fewer than two classes,
                labels or names that do not fit, a number out of range.
            RuntimeError: From `map`, hence from `pipelines`: the data set yields other images than
                when it was first read.

        Example:

        >>> images, labels = np.random.uniform(size=(10, 32, 48, 3)), np.arange(10) % 2
        >>> dataset = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(10).batch(4)
        >>> data = keras_bit.ImageDataset.from_tf_data(dataset, label_names=("cat", "dog"))
        >>> data.train_size, data.test_size, data.image_size
        (8, 2, (32, 48))
        """
        from keras_bit.data.sources.selection import Selection
        from keras_bit.data.sources.tf_data import tf_dataset

        selection = Selection(validation_split, seed, min_edge, examples_per_class)
        return tf_dataset(train, test, label_names, selection, value_range, multi_label)


def check_dataset(data: Any) -> ImageDataset:
    """Returns `data`; of anything else than an `ImageDataset` the error says what to call.

    Raises:
        TypeError: If `data` is a `tf.data.Dataset`, a path, arrays, or something else.

    Example:

    >>> from keras_bit.data.dataset import check_dataset
    >>> check_dataset(keras_bit.digits(examples_per_class=5)).train_size
    50
    """
    if isinstance(data, ImageDataset):
        return data
    kind, constructor = kind_and_constructor(data)
    raise TypeError(
        f"`data` must be a keras_bit.ImageDataset. Received: {kind}. Use {constructor}."
    )


def is_tf_dataset(data: Any) -> bool:
    """Whether `data` is a `tf.data.Dataset`; does not import TensorFlow."""
    bases = type(data).__mro__
    return any(b.__name__ == "DatasetV2" and b.__module__.startswith("tensorflow.") for b in bases)


def kind_and_constructor(data: Any) -> tuple[str, str]:
    """What `data` is, and which function makes an `ImageDataset` of it; for messages."""
    several = isinstance(data, (tuple, list)) and len(data) > 0
    parts = data if several else (data,)
    if all(map(is_tf_dataset, parts)):
        kind = f"a {type(data).__name__} of tf.data.Datasets" if several else "a tf.data.Dataset"
        return kind, "`keras_bit.ImageDataset.from_tf_data(train, test)`"
    if hasattr(parts[0], "__array__"):
        kind = "arrays" if several else "an array"
        return kind, "`keras_bit.ImageDataset.from_arrays(images, labels)`"
    if isinstance(data, (str, os.PathLike)):
        return f"the path {os.fspath(data)!r}", "`keras_bit.image_folder(path)`"
    kind = f"a {type(data).__module__}.{type(data).__qualname__}"
    if type(data).__module__.partition(".")[0] == "datasets":  # Hugging Face's
        return kind, "`keras_bit.hugging_face_images(dataset)`"
    return kind, (
        "`keras_bit.image_folder(path)`, `keras_bit.image_table(table)`, "
        "`keras_bit.tfds_images(name)`, "
        "`keras_bit.ImageDataset.from_tf_data(train, test)` or "
        "`keras_bit.ImageDataset.from_arrays(images, labels)`"
    )


def label_bytes(labels: np.ndarray) -> bytes:
    """What a fingerprint takes in of labels, the same on every machine."""
    return labels.tobytes() if labels.ndim == 2 else labels.astype("<i4").tobytes()


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The number of images of each class, int64 `(num_classes,)`; of several where they have them.

    Example:

    >>> from keras_bit.data.dataset import class_counts
    >>> class_counts(np.array([0, 2, 2]), 3).tolist()
    [1, 0, 2]
    >>> class_counts(np.array([[1, 0, 1], [0, 0, 1]]), 3).tolist()
    [1, 0, 2]
    """
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def median_size(sizes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Medians of some `(height, width)`, rounded down."""
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)
