"""Which images of a source belong to the training split, which to the test split."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_bit.core.arguments import check_integer, is_number
from keras_bit.core.random import frozen_stream
from keras_bit.core.text import list_some
from keras_bit.core.warn import warn_caller
from keras_bit.data.dataset import ImageDataset, Split, median_size

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "validation", "valid", "val", "testing")
_NAMED_IN_WARNING = 3


class Found(NamedTuple):
    """An image whose header a scan could read."""

    name: str
    label: Any  # class id, or multi-hot row of numbers
    size: tuple[int, int]
    # Tells its split where it is: a file's path, size and times; a row and its hash; an index.
    key: Any


Skipped = tuple[str, str]  # name and reason


@dataclass(frozen=True)
class Selection:
    """The arguments, common to all sources, that choose among the images; checked."""

    validation_split: float
    seed: int
    min_edge: int = 0
    examples_per_class: int | None = None

    def __post_init__(self):
        fraction, count = self.validation_split, self.examples_per_class
        if not is_number(fraction) or not 0 < fraction < 1:
            raise ValueError(
                "`validation_split` must be a number between 0 and 1, both excluded. "
                f"Received: validation_split={fraction!r}"
            )
        plain = {
            "validation_split": float(fraction),
            "seed": check_integer("seed", self.seed, 0),
            "min_edge": check_integer("min_edge", self.min_edge, 0),
        }
        if count is not None:
            plain["examples_per_class"] = check_integer("examples_per_class", count, 1)
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # the way of frozen dataclasses


def stratified_split(
    labels: np.ndarray, label_names: Sequence[str], selection: Selection
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the test images: the same fraction of each class.

    The only image of a class is for training, with a warning. Where an image has several labels,
    as nearly as the images that have them allow.
    """
    if labels.ndim == 2:
        return _multi_label_split(labels, selection)
    train, test, single = [], [], []
    for label, indices in _shuffled_classes(labels, selection.seed):
        held_out = int(_held_out(len(indices), selection.validation_split))
        test.append(indices[:held_out])
        train.append(indices[held_out:])
        if not held_out:
            single.append(repr(label_names[label]))
    if len(single) == len(train):
        raise ValueError(
            "A class must have at least two images, one for training and one for the test split. "
            f"Received: {len(single)} classes of one image each"
        )
    if single:
        listed = list_some(single, _NAMED_IN_WARNING)
        warn_caller(f"Classes of one image, which is for training and not for the test: {listed}")
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _multi_label_split(labels, selection):
    """Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, algorithm 1), for two sides.

    Of the labels, the one that fewest undecided images have is always next, so that rare ones find
    their place before the images that have them are given away for others. Images with a label of
    their own are for training as far as the sizes of the sides allow.
    """
    if len(labels) < 2:
        raise ValueError(
            "At least two images are needed, one for training and one for the test split. "
            f"Received: {len(labels)}"
        )
    fraction = selection.validation_split
    hot, counts = labels.astype(bool), labels.sum(axis=0, dtype=np.int64)
    is_single = hot[:, counts == 1].any(axis=1)
    hot, counts = hot[:, counts > 1], counts[counts > 1]
    test = _held_out(counts, fraction)
    wanted = np.stack([counts - test, test])  # images of each label, on each side
    test_size = int(_held_out(len(labels), fraction))
    sizes = [len(labels) - test_size, test_size]
    order = frozen_stream(selection.seed).permutation(len(labels))
    side = np.full(len(labels), -1)
    single = order[is_single[order]][: sizes[0]]
    side[single] = 0
    wanted[0] -= hot[single].sum(axis=0)
    sizes[0] -= len(single)
    while np.any(left := hot[side < 0].sum(axis=0)):
        label = np.argmin(np.where(left, left, len(labels) + 1))
        for image in order[(side[order] < 0) & hot[order, label]]:
            side[image] = (wanted[1, label], sizes[1]) > (wanted[0, label], sizes[0])
            wanted[side[image]] -= hot[image]
            sizes[side[image]] -= 1
    without = order[side[order] < 0]
    side[without] = 0
    side[without[: max(sizes[1], 0)]] = 1
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def _held_out(counts, fraction):
    """How many of `counts` images become test images: rounded, at least one on each side.

    None of a single image.
    """
    return np.clip(np.floor(counts * fraction + 0.5), 1, counts - 1).astype(np.int64)


def few_shot_subset(
    labels: np.ndarray, label_names: Sequence[str], selection: Selection
) -> np.ndarray:
    """Indices of `examples_per_class` images of every class; of all where that is None."""
    count = selection.examples_per_class
    if count is None:
        return np.arange(len(labels))
    if labels.ndim == 2:
        raise ValueError(
            "`examples_per_class` must be omitted where an image has several labels. "
            f"Received: examples_per_class={count}"
        )
    classes = dict(_shuffled_classes(labels, selection.seed))
    for label, name in enumerate(label_names):
        available = len(classes.get(label, ()))
        if available < count:
            raise ValueError(
                "`examples_per_class` must not exceed the training images of any class. Received: "
                f"examples_per_class={count}, class {name!r} with {available} training images"
            )
    return np.sort(np.concatenate([indices[:count] for indices in classes.values()]))


def filter_found(results: Iterable[Any], min_edge: int) -> tuple[list[Found], list[Skipped]]:
    """Separates inspected images into those to take and those to skip."""
    found, skipped = [], []
    for result in results:
        if not isinstance(result, Found):
            skipped.append(result)
        elif min(result.size) < min_edge:
            height, width = result.size
            reason = f"{height}x{width} pixels, an edge below min_edge={min_edge}"
            skipped.append((result.name, reason))
        else:
            found.append(result)
    return found, skipped


def to_dataset(
    make_split: Callable[[list[Found]], Split],
    found: list[Found],
    test: Split | None,
    label_names: Sequence[str],
    skipped: Sequence[Skipped],
    selection: Selection,
) -> ImageDataset:
    """The `ImageDataset` of what was found, a part of which is the test split if `test` is None."""
    held_out = test is None
    if test is None:
        train_indices, test_indices = stratified_split(_labels(found), label_names, selection)
        test = make_split([found[i] for i in test_indices])
        found = [found[i] for i in train_indices]
    found = [found[i] for i in few_shot_subset(_labels(found), label_names, selection)]
    if skipped:
        listed = list_some([f"{n} ({reason})" for n, reason in skipped], _NAMED_IN_WARNING, "; ")
        warn_caller(f"Skipped: {len(skipped)}, listed in `skipped` of the ImageDataset. {listed}")
    image_size = median_size([image.size for image in found])
    train = make_split(found)
    warn_of_missing_labels(train, test, label_names)
    return ImageDataset(train, test, tuple(label_names), image_size, tuple(skipped), held_out)


def warn_of_missing_labels(train: Split, test: Split, label_names: Sequence[str]) -> None:
    """Warns of labels that no image of a side has, where an image may have several."""
    for side, split in {"training": train, "test": test}.items():
        if split.labels.ndim == 2:
            present: list[bool] = np.asarray(split.labels.any(axis=0)).tolist()
            missing = [name for name, found in zip(label_names, present, strict=True) if not found]
            if missing:
                listed = list_some(list(map(repr, missing)), _NAMED_IN_WARNING)
                warn_caller(f"Labels that no {side} image has: {listed}")


def _labels(found):
    return np.array([image.label for image in found])


def _shuffled_classes(labels: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """`(label, indices)` for every class that occurs, its indices in shuffled order."""
    order = frozen_stream(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    present, counts = np.unique(labels, return_counts=True)
    groups = np.split(by_class, np.cumsum(counts)[:-1])
    return zip(present.tolist(), groups, strict=True)
