"""A cache that several processes build together, each decoding its part of the images."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_bit.core.distribution import processes, wait_for_all
from keras_bit.data.cache import CachedImages, cache_images, folder_of
from keras_bit.data.dataset import Split

FEWEST = 100  # images for each process; fewer are not worth sharing


def cache_images_together(
    split: Split | Any, edge: int, name: str, cache_dir: str | os.PathLike | None = None
) -> CachedImages:
    """`cache_images`, where the processes that train together share the work in `cache_dir`.

    Each caches every `count`-th image; then one of them joins these parts, which are removed. The
    part of a process that has died is built by one of the others. In memory, or on disks of their
    own, each process caches all images: a batch may hold any of them.
    """
    count = processes().count
    if count == 1 or cache_dir is None:
        return cache_images(split, edge, name, cache_dir)
    folder = folder_of(split, edge, name, cache_dir)
    parts_folder = folder.with_name(f".parts-{folder.name}")
    wait_for_all(f"before caching {name}")  # so that each comes first to its own part
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Waiting for another process")
        if not folder.exists() and len(split) >= FEWEST * count:
            split = _Joined(split, _cached_parts(split, edge, parts_folder))
        cached = cache_images(split, edge, name, cache_dir)
    wait_for_all(f"after caching {name}")
    shutil.rmtree(parts_folder, ignore_errors=True)  # by all: each may have a disk of its own
    return cached


def _cached_parts(split, edge, folder):
    """All parts, this process's first: by then the others have begun with theirs."""
    index, count = processes().index, processes().count
    cached = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What is faulty is told of the whole.
        for i in (*range(index, count), *range(index)):
            cached[i] = cache_images(_Part(split, i, count), edge, f"part-{i}", folder)
    return [cached[i] for i in range(count)]


class _Part:
    """Every `count`-th image of a split from `start` on."""

    def __init__(self, split: Split, start: int, count: int):
        self._split = split
        self._indices = range(start, len(split), count)
        self.names = split.names[start::count]
        self.labels = split.labels[start::count]
        self.fingerprint = f"{split.fingerprint}|{start}|{count}"
        self.errors: dict[int, str] = {}

    def __len__(self):
        return len(self._indices)

    def map_indexed(
        self, transform: Callable[[int, np.ndarray], Any], chunk_size: int = 1
    ) -> Iterator[Any]:
        def transform_part(index, image):
            return transform(self._indices.index(index), image)

        yield from self._split.map_indexed(transform_part, chunk_size, self._indices)
        found = self._split.errors
        self.errors = {i: found[index] for i, index in enumerate(self._indices) if index in found}


class _Joined:
    """A split whose images are taken from the caches of its parts."""

    def __init__(self, split: Split, parts: list[CachedImages]):
        self._parts = parts
        self.names, self.labels, self.fingerprint = split.names, split.labels, split.fingerprint
        faults = [fault for part in parts for fault in (*part.skipped, *part.damaged)]
        index_of = {name: index for index, name in enumerate(split.names)}
        self.errors = {index_of[name]: reason for name, reason in faults}

    def __len__(self):
        return len(self.names)

    def map_indexed(
        self, transform: Callable[[int, np.ndarray], Any], chunk_size: int = 1
    ) -> Iterator[Any]:
        readable = [set(part.rows.tolist()) for part in self._parts]
        for index in range(len(self)):
            row, i = divmod(index, len(self._parts))
            is_readable = row in readable[i]
            yield transform(index, self._parts[i].images[row]) if is_readable else None
