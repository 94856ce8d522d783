"""The batches of `pipelines` as `tf.data`."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_bit.data.batches import BatchSpec
from keras_bit.data.cache import CachedImages
from keras_bit.data.sampler import Crops
from keras_bit.data.tf_sampler import TensorFlowSampler, crop_batch
from keras_bit.layers.mixup import MixUp


def tf_batches(
    train: CachedImages, test: CachedImages, spec: BatchSpec
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """The training and test data sets of cached images, as `pipelines` describes them."""
    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # TensorFlow already uses its GPUs
            tf.config.set_visible_devices([], "GPU")
    with tf.device("CPU"):
        return _training_batches(train, spec), _test_batches(test, spec)


def _training_batches(cached, spec):
    rule, size, dtype = spec.rule, spec.size, spec.dtype
    sampler = TensorFlowSampler(len(cached), rule, spec.seed)
    images, all_labels = _on_tensorflow(cached.images), tf.constant(cached.labels)
    mixup: Any = MixUp(rule.mixup_alpha) if rule.mixup_alpha else None
    mix = _mixer(mixup, size, dtype)

    def make_batch(step, positions, indices):
        labels = _label_rows(all_labels, positions, spec.num_classes)
        weight = sampler.weight(step) if mixup else 1.0
        if spec.mix_in_model:
            labels = mixup.mix(labels, labels, weight)[1][:size] if mixup else labels
            positions, indices = positions[:size], indices[:size]
        crops = Crops(*(tf.gather(values, indices) for values in sampler.crops(step)))
        rows = tf.gather(cached.rows, positions)
        cropped = crop_batch(images, rows, crops, rule.crop_size)
        if spec.mix_in_model:
            batch = {"images": _convert(cropped, dtype), "weight": tf.repeat(weight, size)}, labels
        else:
            batch = mix(cropped, labels, weight) if mixup else (_convert(cropped, dtype), labels)
        if spec.class_weights is None:
            return batch
        return *batch, tf.reduce_sum(batch[1] * spec.class_weights, axis=1)

    first = spec.initial_step
    steps = tf.data.Dataset.zip(tf.data.Dataset.counter(first), sampler.stream(first))
    micro_batches = steps.flat_map(_micro_batches_of(spec))
    batches = _map_ahead(micro_batches, make_batch, spec.ahead(rule.crop_size))
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _micro_batches_of(spec):
    """A function from a step and its images' positions to a data set of its micro-batches."""

    @tf.autograph.experimental.do_not_convert
    def micro_batches(step, positions):
        indices = tf.data.Dataset.from_tensor_slices(spec.indices)
        return indices.map(lambda indices: (step, tf.gather(positions, indices), indices))

    return micro_batches


def _mixer(mixup, size, dtype):
    """A function that mixes a batch; the first `size` images of it are of this process."""

    # Compiled, mixing reads memory once: ten times as fast as one operation after another.
    @tf.function(jit_compile=True, autograph=False)
    def mix(images, labels, weight):
        parts = mixup.mix(tf.cast(images, tf.float32), labels, weight)
        images, labels = (part[:size] for part in parts)
        return _convert(images, dtype), labels

    return mix


def _test_batches(cached, spec):
    images, all_labels = _on_tensorflow(cached.images), tf.constant(cached.labels)

    def make_batch(positions, weights=None):
        labels = _label_rows(all_labels, positions, spec.num_classes)
        batch = _convert(tf.gather(images, tf.gather(cached.rows, positions)), spec.dtype)
        if spec.mix_in_model:
            batch = {"images": batch, "weight": tf.ones(tf.shape(batch)[0])}
        return (batch, labels) if weights is None else (batch, labels, weights)

    parts = spec.shard.test_positions(len(cached), spec.rule.micro_batch_size)
    rows = tf.data.Dataset.from_tensor_slices(parts).batch(spec.size)
    return _map_ahead(rows, make_batch, spec.ahead(images.shape[1]))


def _on_tensorflow(images):
    # Through DLPack a tensor has the array's memory, and a memory-mapped file stays on disk.
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__())


def _label_rows(labels, positions, num_classes):
    """One-hot or multi-hot labels of the images at `positions`, float32."""
    rows = tf.gather(labels, positions)
    return tf.cast(rows, tf.float32) if rows.ndim == 2 else tf.one_hot(rows, num_classes)


def _convert(images, dtype):
    """`images`, in [0, 255], as uint8, or as float32 in [0, 1]."""

    @tf.function(jit_compile=True, autograph=False)
    def convert(images):
        if dtype == "uint8":
            return tf.cast(tf.round(images), tf.uint8)
        return tf.cast(images, tf.float32) * (1 / 255)

    return images if images.dtype == dtype == "uint8" else convert(images)


def _map_ahead(dataset: tf.data.Dataset, make_batch: Callable, ahead: int) -> tf.data.Dataset:
    """Makes batches in parallel, `ahead` at a time."""
    make_batch = tf.autograph.experimental.do_not_convert(make_batch)
    # To optimize a pipeline, TensorFlow writes it out as a graph, and with it a copy of all images.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    # There is nothing to tune, and when an iterator is deleted TensorFlow may wait up to a minute
    # for the thread that tunes: woken before it can see that it is to end, it sleeps again.
    options.autotune.enabled = False
    batches = dataset.map(make_batch, num_parallel_calls=ahead).prefetch(1)
    return batches.with_options(options)
