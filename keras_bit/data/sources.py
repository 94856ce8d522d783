"""Where images come from: folders, TensorFlow Datasets and arrays, each as an `ImageDataset`."""

import hashlib
import io
import numbers
import os
import stat
import struct
import unicodedata
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_bit.checks import check_integer

_FORMATS = ("JPEG", "PNG", "BMP", "GIF")
_NOT_AN_IMAGE = "not a readable JPEG, PNG, BMP or GIF image"
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_TEST_FOLDERS = ("test", "validation", "valid", "val")
_MAX_WORKERS = 16
_NAMED_IN_WARNING = 3
_DIGITS_ENLARGEMENT = 4


def _image_errors():
    """What Pillow raises for files that are broken, hostile or no image at all."""
    from PIL import Image

    return (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        EOFError,
        MemoryError,
        NotImplementedError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    )


def _open(source):
    from PIL import Image

    Image.preinit()
    return Image.open(source, formats=_FORMATS)


def _orientation(image):
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or it cannot be read."""
    from PIL import ExifTags, Image

    try:
        # PngImageFile overrides this method with one that decodes the pixels first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except _image_errors():
        return 1
    return int(value) if value in range(1, 9) else 1


def _upright(image):
    from PIL.Image import Transpose

    transposes = (
        None,
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    transpose = transposes[_orientation(image) - 1]
    return image if transpose is None else image.transpose(transpose)


def _grey_from_16_bit(image):
    """8-bit grey from the high byte, which is what Pillow itself keeps of 16-bit colour."""
    from PIL import Image

    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _rgb(image):
    from PIL import Image

    if image.mode.startswith("I"):
        image = _grey_from_16_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def read_image_size(source):
    """Height and width of an image in pixels, from its header, after its EXIF orientation.

    Args:
        source: Path of a JPEG, PNG, BMP or GIF file, or a binary file object.

    Returns:
        `(height, width)`. The orientation of a PNG file counts where it stands before the pixels.
    """
    with _open(source) as image:
        width, height = image.size
        lies_on_its_side = _orientation(image) >= 5
    return (width, height) if lies_on_its_side else (height, width)


def decode_image(source):
    """Decodes an image at full quality to upright RGB.

    Grey, 1-bit, palette, CMYK and 16-bit images (the high byte) become 8-bit RGB. Transparent
    pixels are laid over white. The EXIF orientation is applied. Of animations, and of files with
    several pictures, the first one is taken.

    Args:
        source: Path of a JPEG, PNG, BMP or GIF file (told by its content, not by its name), or a
            binary file object.

    Returns:
        `np.uint8` array of shape `(height, width, 3)`.

    Raises:
        OSError: The file cannot be read or is no such image (`PIL.UnidentifiedImageError`). A
            broken file may raise other errors too, as Pillow finds them.
    """
    with _open(source) as image:
        image.load()
        return np.asarray(_rgb(_upright(image)))


def _reason(error):
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return _NOT_AN_IMAGE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _attempt(read, source):
    """`(read(source), None)`, or `(None, reason)` where the image is unreadable."""
    try:
        return read(source), None
    except _image_errors() as error:
        return None, _reason(error)


def _threaded_map(function, items):
    """Yields `function(item)` in order, computed ahead in threads within a bounded window."""
    workers = min(os.cpu_count() or 1, _MAX_WORKERS)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="keras_bit-images")
    pending = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class Split(ABC):
    """One side of a data set: labelled images in a fixed order, read when they are asked for.

    Attributes:
        names: Tuple of `n` strings that tell the images apart: paths, or such as
            `"cats_vs_dogs/train/17"`.
        labels: Class ids, read-only `np.int32` array of shape `(n,)`.
        errors: Dict from an image's index to the reason why `map` could not decode it.
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

        def work(source):
            image, reason = self._read(source)
            return (transform(image), None) if reason is None else (None, reason)

        with closing(_threaded_map(work, self._sources())) as results:
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
        return _attempt(decode_image, source)


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


class _Found(NamedTuple):
    """An image whose header a scan could read.

    `key` is the path of its file or its place in the stream of a TFDS split; `identity` is what
    tells one state of a file from another.
    """

    name: str
    label: int
    size: tuple[int, int]
    key: str | int
    identity: str


class FileSplit(Split):
    """Images that lie in files."""

    def __init__(self, found):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._found = tuple(found)

    def _identity(self):
        for image in self._found:
            yield os.fsencode(image.identity)

    def _sources(self):
        return (image.key for image in self._found)


class TfdsSplit(Split):
    """Images of a TFDS split, read as a stream of encoded images each time they are asked for."""

    def __init__(self, builder, split, found):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._builder = builder
        self._split = split
        self._indices = tuple(image.key for image in found)

    def _identity(self):
        yield self._builder.info.full_name.encode()
        yield self._split.encode()
        yield np.array(self._indices, "<i8").tobytes()

    def _sources(self):
        position = 0
        for index, (encoded, _) in enumerate(_tfds_stream(self._builder, self._split)):
            if index == self._indices[position]:
                yield io.BytesIO(encoded)
                position += 1
                if position == len(self):
                    return
        raise RuntimeError(
            f"Split `{self._split}` of {self._builder.info.full_name} has become shorter since "
            f"it was scanned: image {self._indices[position]} is missing."
        )


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
    which yields the transformed image of every index in order, and `errors`, which says why `map`
    yielded `None` for an index.
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


class _Selection(NamedTuple):
    """The arguments, common to folders and TFDS, that choose among the images."""

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


def _divide(labels, label_names, selection):
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


def _few_per_class(labels, label_names, selection):
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


def _labels(found):
    return [image.label for image in found]


def _dataset(found, test_found, make_train, make_test, label_names, left_out, selection):
    """The `ImageDataset` of what was found; where `test_found` is None, a part of `found`."""
    if test_found is None:
        kept, held_out = _divide(_labels(found), label_names, selection)
        found, test_found = [found[i] for i in kept], [found[i] for i in held_out]
    found = [found[i] for i in _few_per_class(_labels(found), label_names, selection)]
    _warn_of_left_out(left_out)
    return ImageDataset(
        train=make_train(found),
        test=make_test(test_found),
        label_names=tuple(label_names),
        image_size=_median_size([image.size for image in found]),
        left_out=tuple(left_out),
    )


def _sift(results, min_edge):
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


def _visible(folder):
    """What lies in a folder, sorted by name, without hidden and system files."""
    with os.scandir(folder) as entries:
        return sorted(
            (
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM_NAMES
            ),
            key=lambda entry: entry.name,
        )


def _is_folder(entry):
    # DirEntry.is_dir raises for a link that points to itself.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _subfolders(folder):
    """Names of the folders in a folder; an error where two differ only in case."""
    names = [entry.name for entry in _visible(folder) if _is_folder(entry)]
    seen = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(
                "Folders must not differ only in upper and lower case; merge or rename them. "
                f"Received: {other!r} and {name!r} in {folder}"
            )
    return names


def _check_folder(path):
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a folder that exists. Received: path={path}")
    if not path.is_dir():
        raise NotADirectoryError(
            f"`path` must be a folder of class folders, not a file. Received: path={path}"
        )


def _layout(root):
    """`(training folder, test folder or None, names of the folders beside the two)`."""
    folders = {name.casefold(): name for name in _subfolders(root)}
    test = next((folders[name] for name in _TEST_FOLDERS if name in folders), None)
    train = folders.get("train")
    if train is None or test is None:
        return root, None, []
    unused = [name for name in folders.values() if name not in (train, test)]
    return root / train, root / test, unused


def _class_folders(folder):
    names = _subfolders(folder)
    if len(names) < 2:
        content = f"only the folder {names[0]!r}" if names else "no folder"
        raise ValueError(
            "`path` must hold one folder of images for each class, at least two (or a `train` "
            f"and a `test` folder of such folders). Received: {folder} with {content} in it"
        )
    return names


def _check_same_classes(train_folder, train_names, test_folder, test_names):
    only_train = sorted(set(train_names) - set(test_names))
    only_test = sorted(set(test_names) - set(train_names))
    if only_train or only_test:
        raise ValueError(
            "Training and test folder must hold the same class folders. Received: "
            f"{only_train} only in {train_folder}, {only_test} only in {test_folder}"
        )


def _walk(folder, ancestors=()):
    """Yields every file below a folder; links to folders are followed, but not in circles."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for entry in _visible(folder):
        if _is_folder(entry):
            yield from _walk(entry.path, (*ancestors, real))
        else:
            yield Path(entry.path)


def _inspect_file(root, item):
    """`(found or None, name, reason or None)` of a file, from its header."""
    path, label = item
    name = str(path)
    try:
        status = path.stat()
    except OSError as error:
        return None, name, _reason(error)
    if not stat.S_ISREG(status.st_mode):
        return None, name, "not a regular file"
    if not status.st_size:
        return None, name, "empty file"
    size, reason = _attempt(read_image_size, name)
    if reason is not None:
        return None, name, reason
    relative = path.relative_to(root).as_posix()
    identity = f"{relative}\0{status.st_size}\0{status.st_mtime_ns}"
    return _Found(name, label, size, name, identity), name, None


def _stray_images(root, folder):
    """Yields `(name, reason)` of the images that lie in `folder` itself, in no class folder."""
    for entry in _visible(folder):
        if not _is_folder(entry):
            found, name, _ = _inspect_file(root, (Path(entry.path), None))
            if found is not None:
                yield name, "outside the class folders"


def _scan_folder(root, folder, label_names, min_edge):
    """What was found in the class folders of `folder`, and what of it is left out."""
    items = (
        (path, label) for label, name in enumerate(label_names) for path in _walk(folder / name)
    )
    found, left_out = _sift(_threaded_map(partial(_inspect_file, root), items), min_edge)
    present = set(_labels(found))
    for label, name in enumerate(label_names):
        if label not in present:
            reasons = [reason for path, reason in left_out if folder / name in Path(path).parents]
            first = f" (the first: {reasons[0]})" if reasons else ""
            raise ValueError(
                "Every class folder must hold images that can be read and are large enough. "
                f"Received: {folder / name} with none, and {len(reasons)} files left out{first}"
            )
    return found, [*_stray_images(root, folder), *left_out]


def image_folder(path, *, validation_split=0.1, seed=0, min_edge=0, examples_per_class=None):
    """An `ImageDataset` over a folder of photographs.

    The folder holds one folder of images for each class, or a `train` and a `test` folder (also
    called `validation`, `valid` or `val`) of such class folders. Class `i` is the `i`-th class
    folder by name. Images may lie in folders within a class folder. JPEG, PNG, BMP and GIF files
    are told by their content. Only their headers are read here; pixels are read by `map`.

    Left out, and listed with reasons in `left_out` and counted in one warning: files that are no
    such images or whose header is broken, images smaller than `min_edge`, images outside the class
    folders, folders beside `train` and `test`. Hidden and system files are passed over. A file that
    is broken behind its header is found by `map` only.

    The division into training and test images depends on the files' relative paths and `seed`
    only, not on the machine or the order in which the file system lists them.

    Args:
        path: The folder.
        validation_split: Fraction of each class that becomes its test images (rounded; at least
            one image stays on each side). Not used where there is a `test` folder.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        min_edge: Images whose shorter edge has fewer pixels are left out.
        examples_per_class: Number of training images that are kept of each class, for few-shot
            runs. The images kept at a smaller number are among those kept at a larger one.
            Default: all. The test images stay the same.

    Returns:
        An `ImageDataset`. The names of its images are their paths.

    Raises:
        FileNotFoundError: `path` does not exist.
        NotADirectoryError: `path` is a file.
        ValueError: There are fewer than two class folders, two of them differ only in case, the
            training and the test classes differ, or a class has too few images.

    Example:

    ```python
    import pathlib, tempfile
    from PIL import Image
    import keras_bit

    folder = pathlib.Path(tempfile.mkdtemp())
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for index in range(5):
            Image.new("RGB", (64, 48)).save(folder / name / f"{index}.png")

    data = keras_bit.image_folder(folder, validation_split=0.2)
    print(data.label_names, data.image_size)  # ('cat', 'dog') (48, 64)
    print(data.train_size, data.test_size)  # 8 2
    ```
    """
    selection = _Selection(validation_split, seed, min_edge, examples_per_class).checked()
    root = Path(path)
    _check_folder(root)
    train_folder, test_folder, unused = _layout(root)
    label_names = _class_folders(train_folder)
    left_out = [(str(root / name), "beside the training and test folder") for name in unused]
    test_found, test_left_out = None, []
    if test_folder is not None:
        _check_same_classes(train_folder, label_names, test_folder, _subfolders(test_folder))
        left_out += _stray_images(root, root)
        test_found, test_left_out = _scan_folder(root, test_folder, label_names, min_edge)
    found, train_left_out = _scan_folder(root, train_folder, label_names, min_edge)
    left_out += train_left_out + test_left_out
    return _dataset(found, test_found, FileSplit, FileSplit, label_names, left_out, selection)


def _import_tfds():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "This data set needs TensorFlow Datasets: `pip install keras_bit[tfds]`."
        ) from error
    return tensorflow_datasets


def _check_tfds_features(builder):
    features = _import_tfds().features
    found = builder.info.features
    known = dict(found) if isinstance(found, features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    is_image = isinstance(image, features.Image) and image.np_dtype in (np.uint8, np.uint16)
    if not is_image or not isinstance(label, features.ClassLabel):
        raise ValueError(
            "`name` must be a data set with an integer `image` (tfds.features.Image) and a `label` "
            f"(tfds.features.ClassLabel). Received: {builder.info.full_name} with {found}"
        )


def _tfds_builder(name, data_dir, download):
    """The builder of a prepared data set; what does not fit is refused before its download."""
    builder = _import_tfds().builder(name, data_dir=data_dir)
    _check_tfds_features(builder)
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise FileNotFoundError(
            f"`download` must be True where the data set is not yet on this machine. Received: "
            f"download=False, and {builder.info.full_name} is not in {builder.data_dir}"
        )
    return builder


def _tfds_split_names(builder, train_split, test_split):
    """The training and the test split; the test split is None where it is cut from training."""
    present = tuple(builder.info.splits)
    train = "train" if train_split is None else train_split
    if test_split is None:
        test = next((name for name in _TEST_FOLDERS if name in present), None)
    else:
        test = test_split
    for argument, split in (("train_split", train), ("test_split", test)):
        if split is not None and split.split("[")[0] not in present:
            raise ValueError(
                f"`{argument}` must be a split of {builder.info.full_name}, which has "
                f"{list(present)}. Received: {argument}={split!r}"
            )
    if train == test:
        raise ValueError(
            "`train_split` and `test_split` must not be the same split. "
            f"Received: {train!r} for both; choose another, or cut one split such as "
            "train_split='train[:90%]', test_split='train[90%:]'"
        )
    return train, test


def _tfds_stream(builder, split):
    """Yields `(encoded image, label)` of every example, always in the same order."""
    tfds = _import_tfds()
    stream = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(
            {"image": True, "label": True}, decoders={"image": tfds.decode.SkipDecoding()}
        ),
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    for example in stream.as_numpy_iterator():
        yield example["image"], int(example["label"])


def _inspect_example(prefix, num_classes, item):
    """`(found or None, name, reason or None)` of an encoded image, from its header."""
    index, (encoded, label) = item
    name = f"{prefix}/{index}"
    if not 0 <= label < num_classes:
        raise ValueError(
            "`train_split` and `test_split` must be labelled splits; name others. "
            f"Received: {prefix} with label {label} at example {index}"
        )
    size, reason = _attempt(read_image_size, io.BytesIO(encoded))
    if reason is not None:
        return None, name, reason
    return _Found(name, label, size, index, ""), name, None


def _scan_tfds(builder, split, num_classes, min_edge):
    prefix = f"{builder.name}/{split}"
    results = _threaded_map(
        partial(_inspect_example, prefix, num_classes), enumerate(_tfds_stream(builder, split))
    )
    found, left_out = _sift(results, min_edge)
    if not found:
        raise ValueError(
            "`train_split` and `test_split` must hold images that can be read and are large "
            f"enough. Received: {prefix} with none, and {len(left_out)} left out "
            f"(min_edge={min_edge})"
        )
    return found, left_out


def tfds_images(
    name,
    *,
    validation_split=0.1,
    train_split=None,
    test_split=None,
    min_edge=0,
    examples_per_class=None,
    seed=0,
    data_dir=None,
    download=True,
):
    """An `ImageDataset` over a data set of TensorFlow Datasets (`pip install keras_bit[tfds]`).

    Every image is read once here, for its size and label, and not decoded; `map` reads the split
    anew as a stream. No image is held in memory.

    Args:
        name: Name of the data set, such as `"oxford_flowers102"`, with features `image` and
            `label`.
        validation_split: Fraction of each class of the training split that becomes its test
            images (rounded; at least one image stays on each side). Used only where the data set
            has no other split to test on.
        train_split: Split to train on, such as `"train[:80%]"`. Default: `"train"`.
        test_split: Split to test on. Default: `"test"` where there is one, else
            `"validation"`, else a part of the training split.
        min_edge: Images whose shorter edge has fewer pixels are left out.
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        data_dir: Folder of the prepared data sets. Default: TFDS's own.
        download: Whether to download and prepare a data set that is not on this machine.

    Returns:
        An `ImageDataset`. Its images are called by split and place, such as
        `"oxford_flowers102/train/17"`. Images that cannot be read or are too small are listed in
        `left_out` and counted in one warning.

    Raises:
        ImportError: TensorFlow Datasets is not installed.
        FileNotFoundError: The data set is not on this machine and `download` is False.
        ValueError: The data set has no such features or splits, or too few images.

    Example:

    ```python
    data = keras_bit.tfds_images("oxford_flowers102", examples_per_class=5)
    print(data.train_size)  # 510
    ```
    """
    selection = _Selection(validation_split, seed, min_edge, examples_per_class).checked()
    builder = _tfds_builder(name, data_dir, download)
    label_names = builder.info.features["label"].names
    train_split, test_split = _tfds_split_names(builder, train_split, test_split)
    make_train = make_test = partial(TfdsSplit, builder, train_split)
    test_found, test_left_out = None, []
    if test_split is not None:
        make_test = partial(TfdsSplit, builder, test_split)
        test_found, test_left_out = _scan_tfds(builder, test_split, len(label_names), min_edge)
    found, left_out = _scan_tfds(builder, train_split, len(label_names), min_edge)
    left_out += test_left_out
    return _dataset(found, test_found, make_train, make_test, label_names, left_out, selection)


def cats_vs_dogs(*, examples_per_class=None, seed=0, data_dir=None, download=True):
    """Photographs of cats and dogs, from TFDS `cats_vs_dogs` (23,262 images, 786 MiB).

    Images with an edge below 96 pixels are left out; of the others 90 % of each class are training
    images and 10 % test images.

    Args:
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.
        data_dir: Folder of the prepared data sets. Default: TFDS's own.
        download: Whether to download the data set where it is not on this machine.

    Returns:
        An `ImageDataset` with `label_names` `("cat", "dog")`.

    Raises:
        As `tfds_images`.

    Example:

    ```python
    data = keras_bit.cats_vs_dogs()
    print(data.num_classes)  # 2
    ```
    """
    return tfds_images(
        "cats_vs_dogs",
        validation_split=0.1,
        min_edge=96,
        examples_per_class=examples_per_class,
        seed=seed,
        data_dir=data_dir,
        download=download,
    )


def digits(*, validation_split=0.2, examples_per_class=None, seed=0):
    """Handwritten digits: the 1,797 images of 8x8 pixels that scikit-learn brings with it.

    Grey values 0 to 16 become 0 to 255, and every pixel a square of 4x4, so that the images have
    the 32 pixels an edge that `BiTBackbone` needs. No network is used.

    Args:
        validation_split: Fraction of each class that becomes its test images.
        examples_per_class: Number of training images that are kept of each class. Default: all.
        seed: Non-negative integer; chooses the test images and the few-shot images.

    Returns:
        An `ImageDataset` of `np.uint8` images of shape `(32, 32, 3)` in memory.

    Raises:
        ValueError: A number is out of range, or a class has too few images.

    Example:

    ```python
    import keras_bit

    data = keras_bit.digits()
    print(data.num_classes, data.image_size)  # 10 (32, 32)
    ```
    """
    from sklearn.datasets import load_digits

    selection = _Selection(validation_split, seed, 0, examples_per_class).checked()
    inks, labels = load_digits(return_X_y=True)
    grey = np.rint(inks.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    grey = grey.repeat(_DIGITS_ENLARGEMENT, axis=1).repeat(_DIGITS_ENLARGEMENT, axis=2)
    images = np.stack([grey] * 3, axis=-1)
    label_names = [str(label) for label in range(10)]
    train, test = _divide(labels, label_names, selection)
    train = train[_few_per_class(labels[train], label_names, selection)]
    return ImageDataset.from_arrays(
        images[train], labels[train], images[test], labels[test], label_names
    )
