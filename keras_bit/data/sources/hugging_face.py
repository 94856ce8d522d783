"""Data sets of Hugging Face's `datasets` as an `ImageDataset`."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keras_bit.core.text import list_some
from keras_bit.data.dataset import ImageDataset
from keras_bit.data.images import SKIP, check_damaged, read_image_size, try_read, try_transform
from keras_bit.data.sources.encoded import EncodedSplit
from keras_bit.data.sources.labels import check_label_names, class_names, multi_hot
from keras_bit.data.sources.selection import Found, Selection, filter_found, to_dataset
from keras_bit.data.sources.split_names import choose_splits
from keras_bit.data.threads import threaded_map

LISTED_COLUMNS = 20


class HuggingFaceSplit(EncodedSplit):
    """Images of a table of `datasets`, each read from its disk when it is asked for."""

    def __init__(self, images: "_Images", damaged: str, found: list[Found]):
        super().__init__(damaged, found)
        self._images = images

    def _identity(self):
        yield from super()._identity()
        yield from (digest for _, digest in self._keys)

    def _sources(self):
        return (row for row, _ in self._keys)

    def _try_transform(self, source, transform):
        content, reason = try_read(self._images.read, source)
        if content is None:
            return None, reason
        return try_transform(io.BytesIO(content), transform, self._damaged)


def hugging_face_images(
    dataset: Any,
    *,
    image: str = "image",
    label: str = "label",
    label_names: Sequence[str] | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    validation_split: float = 0.1,
    seed: int = 0,
    min_edge: int = 0,
    examples_per_class: int | None = None,
    damaged: str = SKIP,
) -> ImageDataset:
    """An `ImageDataset` over a data set of `datasets` (`pip install "keras_bit[huggingface]"`).

    Every image is read once here, for its size and a hash, and not decoded; `map` reads and decodes
    it from the data set's files. No image is held in memory. Images that cannot be read or are too
    small are listed in `skipped` and counted in one warning.

    Args:
        dataset: A `datasets.Dataset` or `DatasetDict`, such as `datasets.load_dataset` gives it,
            or the folder of `save_to_disk`. Streamed ones, `IterableDataset` or
            `IterableDatasetDict`, are first written to `cache_dir`.
        image: Name of the column of images, with the feature `datasets.Image`.
        label: Name of the column of labels: `datasets.ClassLabel`, integers, booleans or strings;
            or lists of `ClassLabel` or of strings, for images of several labels.
        label_names: Names of the classes, for columns that have none. Default: strings sorted, or
            integers as strings.
        train_split: Split of a `DatasetDict` to train on. Default: `"train"`.
        test_split: Split of a `DatasetDict` to test on. Default: the first that there is of
            `"test"`, `"validation"`, `"valid"`, `"val"` and `"testing"`, else a part of the
            training split.
        cache_dir: Folder for streamed data, of one data set: what is in it is taken instead of
            streaming again, and where writing has been interrupted, it resumes. A stream that is
            shuffled needs a seed: it must give the same rows again. Streams that differ in nothing
            but `take`, `filter` or their generator cannot be told apart: give each a folder.
        validation_split, seed, min_edge, examples_per_class, damaged: As for `image_folder`.

    Raises:
        ImportError: `datasets` is not installed.
        FileNotFoundError: There is no data set in the folder `dataset`.
        TypeError: `dataset` is something else, `label_names` are not strings.
        ValueError: A column is missing or of another type, an image has no label (`-1` or `None`),
            there is no such split or too few images, streamed data without `cache_dir` or with that
            of another data set, an argument is out of range.

    Example:

    >>> import datasets  # doctest: +SKIP
    >>> beans = datasets.load_dataset("AI-Lab-Makerere/beans")  # doctest: +SKIP
    >>> data = keras_bit.hugging_face_images(beans, label="labels")  # doctest: +SKIP
    >>> data.label_names  # doctest: +SKIP
    ('angular_leaf_spot', 'bean_rust', 'healthy')
    """
    selection = Selection(validation_split, seed, min_edge, examples_per_class)
    check_damaged(damaged)
    tables = _splits(_import_datasets(), dataset, train_split, test_split)
    features = {name: _checked_features(table, image, label) for name, table in tables.items()}
    tables = _on_disk(tables, [image, label], cache_dir)
    sides = {
        name: _Images(name, table, image, _Labels.of(features[name], table, label))
        for name, table in tables.items()
    }
    names = _class_names([side.labels for side in sides.values()], label, label_names)
    (train, found, skipped), *tests = (
        (side, *_scan(side, names, min_edge)) for side in sides.values()
    )
    test = None
    for side, test_found, test_skipped in tests:
        test = HuggingFaceSplit(side, damaged, test_found)
        skipped += test_skipped
    make_split = partial(HuggingFaceSplit, train, damaged)
    return to_dataset(make_split, found, test, names, skipped, selection)


def _import_datasets():
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'It needs `datasets` of Hugging Face: `pip install "keras_bit[huggingface]"`.'
        ) from error
    return datasets


def _splits(datasets, dataset, train_split, test_split):
    """The table to train on and, where there is one, that to test on, by the names of the splits.

    A table may be streamed.
    """
    if isinstance(dataset, (str, os.PathLike)):
        dataset = _load(datasets, Path(dataset))
    if isinstance(dataset, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        train, test = choose_splits(
            list(dataset), "the data set", train_split, test_split, slices=False
        )
        return {name: dataset[name] for name in (train, test) if name is not None}
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        raise TypeError(
            "`dataset` must be a Dataset or DatasetDict of Hugging Face's datasets, or the folder "
            f"of one. Received: a {type(dataset).__module__}.{type(dataset).__qualname__}"
        )
    for argument, split in {"train_split": train_split, "test_split": test_split}.items():
        if split is not None:
            raise ValueError(
                f"`{argument}` must be omitted where `dataset` is a single split. "
                f"Received: {argument}={split!r}. Pass a DatasetDict."
            )
    return {"train": dataset}


def _load(datasets, path):
    try:
        return datasets.load_from_disk(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "`dataset` must be a data set or the folder that its `save_to_disk` has written. "
            f"Received: dataset={path}. Of a folder of images `keras_bit.image_folder` makes a "
            "data set."
        ) from error


def _checked_features(table, image, label):
    """The features of a table that has an image and a label."""
    import datasets

    features = table.features
    if features is None:
        raise ValueError(
            "`dataset` must have features. Received: a stream without; give them where it is made, "
            "such as `IterableDataset.from_generator(..., features=features)`."
        )
    for argument, name in (("image", image), ("label", label)):
        if name not in features:
            raise ValueError(
                f"`{argument}` must name a column of the data set. Received: {argument}={name!r}; "
                f"columns: {list_some(list(map(str, features)), LISTED_COLUMNS)}"
            )
    if not isinstance(features[image], datasets.Image):
        raise ValueError(
            "`image` must be a column with the feature datasets.Image. Received: "
            f"image={image!r} with {features[image]}. Of paths and of encoded images make one: "
            f"`dataset.cast_column({image!r}, datasets.Image())`."
        )
    return features


def _on_disk(tables, columns, cache_dir):
    """The tables, of streamed ones what has been written of them."""
    import datasets

    if not any(isinstance(table, datasets.IterableDataset) for table in tables.values()):
        return tables
    if cache_dir is None:
        raise ValueError(
            "`cache_dir` must be given for streamed data: the folder to which they are written. "
            "Received: cache_dir=None"
        )
    from keras_bit.data.sources.hugging_face_stream import write_stream

    return {
        name: write_stream(table, columns, Path(cache_dir, name)) for name, table in tables.items()
    }


@dataclass(frozen=True)
class _Labels:
    """The labels of a table: ids or strings, or lists of them."""

    values: list
    names: tuple[str, ...] | None  # of a ClassLabel
    are_text: bool
    multi_label: bool

    @classmethod
    def of(cls, features, table, column):
        import datasets

        feature = features[column]
        element = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        multi_label = element is not None
        kind: Any = element if multi_label else feature
        dtype = getattr(kind, "dtype", "")
        is_class = isinstance(kind, datasets.ClassLabel)
        are_text = not is_class and dtype in ("string", "large_string")
        is_number = not multi_label and (dtype == "bool" or "int" in dtype)
        if not (is_class or are_text or is_number):
            raise ValueError(
                "`label` must be a column of datasets.ClassLabel, integers or strings, or of lists "
                f"of ClassLabel or strings. Received: label={column!r} with {feature}. Choose or "
                "make one: `dataset.cast_column(name, datasets.ClassLabel(names=names))`."
            )
        values = list(table.with_format(None)[column])
        names = tuple(kind.names) if is_class else None
        return cls(values, names, are_text, multi_label).checked(column)

    def checked(self, column):
        """These labels; raises where an image has none, though every one has to have a class."""
        for index, value in enumerate(self.values):
            ids = value or () if self.multi_label else (value,)
            for each in ids:
                if each is None or (not self.are_text and each < 0):
                    raise ValueError(
                        "`label` must be a column with a label for every image. Received: "
                        f"{column!r} with {each} in row {index}. Choose other splits, or leave "
                        "such rows out: `dataset.filter`."
                    )
        return self

    def occurring(self):
        """Every label that an image has."""
        lists = self.values if self.multi_label else ((value,) for value in self.values)
        return {value for values in lists for value in values or ()}


class _Images:
    """The encoded images of a table, and their labels."""

    def __init__(self, split: str, table: Any, column: str, labels: _Labels):
        import datasets

        self.split, self.labels, self._column = split, labels, column
        table = table.with_format(None).select_columns([column])
        self._table = table.cast_column(column, datasets.Image(decode=False))

    def __len__(self):
        return len(self._table)

    def read(self, row: int) -> bytes:
        """The encoded image of a row; raises a ValueError or an OSError where there is none."""
        image = self._table[row][self._column]
        if image is None:
            raise ValueError("no image")
        if image["bytes"] is not None:
            return image["bytes"]
        if not os.path.isfile(image["path"]):
            raise ValueError(f"no such file: {image['path']}")
        return Path(image["path"]).read_bytes()


def _class_names(sides, column, label_names):
    """The names of the classes, in the order of their ids, which are the same on all sides."""
    first, *others = sides
    for other in others:
        kinds = [(side.names, side.are_text, side.multi_label) for side in (first, other)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                "`train_split` and `test_split` must have the same kind of labels and the same "
                f"classes. Received: the column {column!r} of two kinds"
            )
    if first.names is not None:
        if label_names is not None:
            raise ValueError(
                "`label_names` must be omitted for a column that names its classes. "
                f"Received: {column!r} with {list(first.names)[:LISTED_COLUMNS]}"
            )
        return class_names(first.names, len(first.names) - 1, len(first.values))
    if not any(len(side.values) for side in sides):
        raise ValueError("`dataset` must have rows. Received: none")
    occurring = set().union(*(side.occurring() for side in sides))
    if not first.are_text:
        return class_names(label_names, int(max(occurring)), sum(len(s.values) for s in sides))
    names = check_label_names(sorted(occurring) if label_names is None else label_names)
    if unknown := sorted(occurring - set(names)):
        raise ValueError(
            f"`label_names` must name every label. Received: {column!r} with {unknown[0]!r}"
        )
    return class_names(names, len(names) - 1, len(first.values))


def _scan(images, names, min_edge):
    """What was found of the images of a split, and what of it was skipped."""
    ids = {name: index for index, name in enumerate(names)}

    def to_label(value):
        if images.labels.are_text:
            value = [ids[each] for each in value or ()] if images.labels.multi_label else ids[value]
        return multi_hot(value or (), len(names)) if images.labels.multi_label else int(value)

    def inspect(row):
        name = f"{images.split}/{row}"
        content, reason = try_read(images.read, row)
        if content is None:
            return name, reason
        size, reason = try_read(read_image_size, io.BytesIO(content))
        digest = hashlib.blake2b(content, digest_size=16).digest()
        label = to_label(images.labels.values[row])
        return Found(name, label, size, (row, digest)) if size else (name, reason)

    found, skipped = filter_found(threaded_map(inspect, range(len(images))), min_edge)
    if not found:
        reasons = f", the first: {skipped[0][1]}" if skipped else ""
        raise ValueError(
            "`dataset` must have splits with images that can be read and are large enough. "
            f"Received: {images.split!r} with none among {len(images)}{reasons}"
        )
    return found, skipped
