"""The batches of `pipelines` as `keras.utils.PyDataset`, made by NumPy, without TensorFlow."""

import threading
from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_bit.data.batches import BatchSpec
from keras_bit.data.cache import CachedImages
from keras_bit.data.sampler import Sampler, crop_batch


def py_batches(
    train: CachedImages, test: CachedImages, spec: BatchSpec
) -> tuple["TrainingBatches", "TestBatches"]:
    """The training and test data sets of cached images, as `pipelines` describes them."""
    return TrainingBatches(train, spec), TestBatches(test, spec)


class Batches(keras.utils.PyDataset):
    """Batches that are each a function of its index, made ahead in threads.

    Keras makes those of other PyDatasets ahead in `workers` of its own. It must not do so here: it
    loses the first batches of endless ones where it looks at a batch to build the model.
    """

    def __init__(self, cached: CachedImages, spec: BatchSpec) -> None:
        super().__init__()
        self._cached, self._spec = cached, spec
        self._ahead = spec.ahead(cached.images.shape[1])
        self._threads = ThreadPoolExecutor(self._ahead, thread_name_prefix="keras_bit-batches")
        self._pending: dict[int, Future] = {}
        self._lock = threading.Lock()

    @property
    def workers(self) -> int:
        """Number of Keras's workers: 1, which makes Keras start none."""
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        raise ValueError(
            "`workers` must stay as it is: these batches are made ahead in threads of their own. "
            f"Received: workers={value!r}"
        )

    @property
    def use_multiprocessing(self) -> bool:
        """Whether Keras makes batches in processes of its own: it does not."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        raise ValueError(
            "`use_multiprocessing` must stay as it is: these batches are made ahead in threads, "
            f"where NumPy uses all cores. Received: use_multiprocessing={value!r}"
        )

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        index = self._checked(index)
        with self._lock:
            wanted = [i for i in range(index, index + self._ahead + 1) if self._exists(i)]
            pending = {
                i: self._pending.get(i) or self._threads.submit(self._make, i) for i in wanted
            }
            for i in self._pending.keys() - pending.keys():
                self._pending[i].cancel()
            future = pending.pop(index)
            self._pending = pending
        return future.result()

    def _checked(self, index):
        number = index + len(self) if index < 0 and self.num_batches is not None else index
        if number < 0 or not self._exists(number):
            raise IndexError(f"There is no batch of index {index}.")
        return number

    def _exists(self, index):
        return self.num_batches is None or index < self.num_batches

    @abstractmethod
    def _make(self, index):
        """Returns the batch of this index; called in threads."""

    def _labels(self, positions):
        """One-hot or multi-hot labels of the images at `positions`, float32."""
        rows = self._cached.labels[positions]
        if rows.ndim == 2:
            return rows.astype(np.float32)
        labels = np.zeros((len(rows), self._spec.num_classes), np.float32)
        labels[np.arange(len(rows)), rows] = 1
        return labels


class TrainingBatches(Batches):
    """The endless training batches of `pipelines`."""

    def __init__(self, cached: CachedImages, spec: BatchSpec) -> None:
        super().__init__(cached, spec)
        self._sampler = Sampler(len(cached), spec.rule, spec.seed)

    @property
    def num_batches(self) -> None:
        """`None`: they never end."""
        return None

    def _make(self, index):
        spec, sampler = self._spec, self._sampler
        update, part = divmod(index, len(spec.indices))
        step, indices = spec.initial_step + update, spec.indices[part]
        positions = sampler.positions(step)[indices]
        labels = self._labels(positions)
        weight = sampler.weight(step) if spec.rule.mixup_alpha else np.float32(1)
        if spec.rule.mixup_alpha:
            labels = (labels * weight + labels[::-1] * (1 - weight))[: spec.size]
        if spec.mix_in_model:
            positions, indices = positions[: spec.size], indices[: spec.size]
        crops = sampler.crops(step).take(indices)
        rows = self._cached.rows[positions]
        images = crop_batch(self._cached.images, rows, crops, spec.rule.crop_size)
        if spec.mix_in_model:
            weights = np.full(spec.size, weight)
            inputs = {"images": _convert(images, spec.dtype), "weight": weights}
        elif spec.rule.mixup_alpha:
            inputs = _mix(images, weight, spec.size, spec.dtype)
        else:
            inputs = _convert(images, spec.dtype)
        if spec.class_weights is None:
            return inputs, labels
        return inputs, labels, (labels * np.asarray(spec.class_weights, np.float32)).sum(axis=1)


class TestBatches(Batches):
    """The test batches of `pipelines`."""

    __test__ = False  # for pytest

    def __init__(self, cached: CachedImages, spec: BatchSpec) -> None:
        super().__init__(cached, spec)
        self._parts = spec.shard.test_positions(len(cached), spec.rule.micro_batch_size)

    def __len__(self):
        return -(-len(self._parts[0]) // self._spec.size)

    def _make(self, index):
        size = self._spec.size
        positions, *weights = (part[index * size : (index + 1) * size] for part in self._parts)
        images = _convert(self._cached.take(positions), self._spec.dtype)
        if self._spec.mix_in_model:
            images = {"images": images, "weight": np.ones(len(positions), np.float32)}
        return images, self._labels(positions), *weights


def _mix(images, weight, size, dtype):
    """The first `size` of the images, mixed with the images from the end on; one after another.

    So each is mixed and converted while it is in the cache of this thread's core. No operation
    rounds, so that other ones, in another order, give the same.
    """
    mixed = np.empty((size, *images.shape[1:]), dtype)
    for first in range(min(size, (len(images) + 1) // 2)):
        last = len(images) - 1 - first
        own, partner = images[first].astype(np.float32), images[last].astype(np.float32)
        shift = own - partner
        shift *= weight
        partner += shift
        _convert_into(mixed[first], partner)
        if last < size:  # the two are each other's partners
            own -= shift
            _convert_into(mixed[last], own)
    return mixed


def _convert_into(target, mixed):
    if target.dtype == np.float32:
        np.multiply(mixed, np.float32(1 / 255), out=target)
    else:
        target[...] = np.rint(mixed, out=mixed)


def _convert(images, dtype):
    """uint8 `images` as they are, or as float32 in [0, 1]."""
    if dtype == "uint8":
        return images
    scaled = images.astype(np.float32)
    scaled *= np.float32(1 / 255)
    return scaled
