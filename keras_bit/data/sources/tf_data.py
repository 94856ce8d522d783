"""A `tf.data.Dataset` of images and labels as an `ImageDataset`."""

import math
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_bit.core.arguments import check_boolean
from keras_bit.data.dataset import ImageDataset, Split
from keras_bit.data.sources.labels import class_names, multi_hot
from keras_bit.data.sources.selection import Found, Selection, filter_found, to_dataset
from keras_bit.data.sources.tf_elements import (
    BYTE_RANGE,
    Label,
    check_dataset_form,
    check_image,
    check_value,
    check_value_range,
    digest_of,
    extremes,
    label_of,
    labeled_images,
    range_of_floats,
    to_bytes,
)
from keras_bit.data.threads import threaded_map

REPETITION_CHECK = 10_000  # images, and again at twice as many
REPETITIONS = 100  # of each image on average are taken for a data set that never ends


@dataclass(frozen=True, eq=False)
class Source:
    """A data set that has been read once; its images are numbered in the order of their digests."""

    side: str  # the argument, "train" or "test"
    dataset: Any
    digests: list[bytes]  # sorted; equal ones are of equal images with equal labels
    value_range: tuple[float, float]
    multi_label: bool


class TfDataSplit(Split):
    """Some of the images of a `tf.data.Dataset`, read as a stream each time they are asked for.

    The stream may come in any order. `map` transforms images as they come, and holds the results
    back until their turn.
    """

    def __init__(self, source: Source, found: list[Found]):
        super().__init__((image.name for image in found), [image.label for image in found])
        self._source = source
        self._positions = [image.key for image in found]

    def map_indexed(self, transform, chunk_size=1, indices=None):
        source, arrivals = self._source, _Arrivals(self._source)
        indices = range(len(self)) if indices is None else indices
        index_of = np.full(len(source.digests), -1)  # in this split, of the source's images
        index_of[self._positions] = np.arange(len(self))

        def work(example):
            number, image, label = example
            label, _ = label_of(source.side, number, label, source.multi_label)
            index = int(index_of[arrivals.place(digest_of(image, label))])
            if index not in indices:
                return None
            return indices.index(index), transform(index, to_bytes(image, source.value_range))

        stream = labeled_images(source.side, source.dataset)
        with closing(threaded_map(work, stream, chunk_size)) as results:
            yield from _in_turn(result for result in results if result is not None)
        arrivals.check_complete()

    def _identity(self):
        yield repr(self._source.value_range).encode()
        yield from (self._source.digests[position] for position in self._positions)


class _Arrivals:
    """Which images of a source have come, while its data set is read once more."""

    def __init__(self, source: Source):
        self._side, self._digests = source.side, source.digests
        self._counts = np.zeros(len(source.digests), np.int64)  # at the first of equal digests
        self._lock = threading.Lock()

    def place(self, digest: bytes) -> int:
        """The place of the image with this digest; equal ones take theirs one after another."""
        first = bisect_left(self._digests, digest)
        with self._lock:
            place = first + int(self._counts[first]) if first < len(self._counts) else first
            if self._digests[place : place + 1] != [digest]:
                raise self._error("an image, or a label, that did not come the first time")
            self._counts[first] += 1
        return place

    def check_complete(self) -> None:
        """Raises if an image has not come."""
        missing = len(self._counts) - int(self._counts.sum())
        if missing:
            raise self._error(f"{missing} of {len(self._counts)} images missing the second time")

    def _error(self, what):
        return RuntimeError(
            f"`{self._side}` must yield the same images whenever it is read. Received: {what}. "
            "Leave random augmentation out of the data set, for the rule augments. If its files "
            "have changed, call `from_tf_data` again."
        )


def _in_turn(results: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Yields the results of `(index, result)` in the order 0, 1, 2, ... of their indices."""
    waiting: dict[int, Any] = {}
    turn = 0
    for index, result in results:
        waiting[index] = result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


class _Example(NamedTuple):
    """What is kept of an image that has been read."""

    digest: bytes
    label: Label
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Scan:
    """What the first reading of a data set tells."""

    side: str
    dataset: Any
    examples: list[_Example]
    width: int | None  # number of classes, where labels are one-hot or multi-hot
    multi_label: bool
    lowest: tuple[float, int]  # the smallest value of all pixels, and the example that has it
    highest: tuple[float, int]


def tf_dataset(
    train: Any,
    test: Any,
    label_names: Iterable[str] | None,
    selection: Selection,
    value_range: tuple[float, float] | None,
    multi_label: bool,
) -> ImageDataset:
    """`ImageDataset.from_tf_data`, which explains the arguments."""
    multi_label = check_boolean("multi_label", multi_label)
    if value_range is not None:
        value_range = check_value_range(value_range)
    datasets = {"train": train} if test is None else {"train": train, "test": test}
    for side, dataset in datasets.items():
        check_dataset_form(side, dataset)
    if test is train:
        raise ValueError(
            "`test` must hold other images than `train`. Received: the same data set for both. "
            "Leave `test` out to hold out a part of `train`."
        )
    scans = [_scan(side, dataset, multi_label) for side, dataset in datasets.items()]
    names = _class_names(scans, label_names)
    ranges = _value_ranges(scans, value_range)
    sources = [_source(scan, values) for scan, values in zip(scans, ranges, strict=True)]
    selected = [_select(*each, selection.min_edge) for each in zip(sources, scans, strict=True)]
    found, skipped = selected[0]
    test_split = None
    if test is not None:
        test_split = TfDataSplit(sources[1], selected[1][0])
        skipped += selected[1][1]
    make_split = partial(TfDataSplit, sources[0])
    return to_dataset(make_split, found, test_split, names, skipped, selection)


def _scan(side, dataset, multi_label):
    """Reads a data set for the first time."""

    def inspect(item):
        number, image, label = item
        check_image(side, number, image)
        label, width = label_of(side, number, label, multi_label)
        example = _Example(digest_of(image, label), label, image.shape[:2])
        return example, width, *extremes(side, number, image)

    examples, widths, lowest, highest = [], set(), (math.inf, 0), (-math.inf, 0)
    next_check = REPETITION_CHECK
    with closing(threaded_map(inspect, labeled_images(side, dataset))) as results:
        for number, (example, width, low, high) in enumerate(results):
            examples.append(example)
            widths.add(width)
            lowest, highest = min(lowest, (low, number)), max(highest, (high, number))
            if number + 1 == next_check:
                _check_repetition(side, examples)
                next_check *= 2
    if not examples:
        raise ValueError(f"`{side}` must hold at least one image. Received: an empty data set")
    if len(widths) > 1:
        raise ValueError(
            f"`{side}` must hold labels of one form. Received: one-hot labels of several lengths, "
            f"or class ids beside them: {sorted(widths, key=str)}"
        )
    return _Scan(side, dataset, examples, widths.pop(), multi_label, lowest, highest)


def _check_repetition(side, examples):
    """Raises where nearly all images came before: `repeat` is not seen behind a `filter`."""
    distinct = len({example.digest for example in examples})
    if distinct < len(examples) / REPETITIONS:
        raise ValueError(
            f"`{side}` must end and hold each image once. Received: {len(examples)} images with "
            f"{distinct} different ones among them. Leave `repeat` out."
        )


def _class_names(scans, label_names):
    """The names of the classes: as given, as Keras wrote them on the data sets, or the ids."""
    if label_names is None:
        written = {tuple(getattr(scan.dataset, "class_names", None) or ()) for scan in scans}
        written.discard(())
        if len(written) > 1:
            raise ValueError(
                "`train` and `test` must hold the same classes in the same order. "
                f"Received: {' and '.join(map(str, sorted(written)))}"
            )
        label_names = written.pop() if written else None
    widths = {scan.width for scan in scans} - {None}
    ids = {example.label for scan in scans if not scan.multi_label for example in scan.examples}
    images = sum(len(scan.examples) for scan in scans)
    names = class_names(label_names, max(ids | {width - 1 for width in widths}), images)
    if widths and widths != {len(names)}:
        raise ValueError(
            "Labels of several numbers must have one for each class. "
            f"Received: labels of {sorted(widths)} numbers, {len(names)} classes"
        )
    return names


def _value_ranges(scans, value_range):
    """The range of each side's values; floats of both sides have the same."""
    floats = [scan for scan in scans if scan.dataset.element_spec[0].dtype.is_floating]
    of_integers, of_floats = value_range or BYTE_RANGE, value_range
    if floats and value_range is None:
        of_floats = range_of_floats(max(scan.highest[0] for scan in floats))
    ranges = [of_floats if scan in floats else of_integers for scan in scans]
    for scan, values in zip(scans, ranges, strict=True):
        for value, number in (scan.lowest, scan.highest):
            check_value(scan.side, number, value, values)
    return ranges


def _source(scan, value_range):
    """Numbers the images of a scan."""
    scan.examples.sort()
    digests = [example.digest for example in scan.examples]
    return Source(scan.side, scan.dataset, digests, value_range, scan.multi_label)


def _select(source, scan, min_edge):
    """The images of a scan that are large enough, and those that are not."""
    counts: Counter[str] = Counter()
    images = []
    for place, (digest, label, size) in enumerate(scan.examples):
        name = f"{source.side}/{digest.hex()[:16]}"
        counts[name] += 1
        copy = f"-{counts[name]}" if counts[name] > 1 else ""
        if scan.multi_label:
            label = multi_hot(label, scan.width)
        images.append(Found(name + copy, label, size, place))
    found, skipped = filter_found(images, min_edge)
    if not found:
        raise ValueError(
            f"`{source.side}` must hold images that are large enough. "
            f"Received: none, and {len(skipped)} skipped (min_edge={min_edge})"
        )
    return found, skipped
