"""BiT-HyperRule's input pipeline: from an `ImageDataset` to training and test `tf.data`."""

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_bit.core.arguments import check_boolean, check_integer
from keras_bit.data.cache import CachedImages, cache_size
from keras_bit.data.dataset import ImageDataset, check_dataset
from keras_bit.data.shard import Shard
from keras_bit.data.shared_cache import cache_images_together
from keras_bit.hyperrule.rule import HyperRule
from keras_bit.layers.mixup import MixUp

if TYPE_CHECKING:
    import tensorflow as tf

DTYPES = ("float32", "uint8")
BYTES_AHEAD = 2**28  # of batches in preparation; one of them alone keeps several cores busy


class CachedSplits(NamedTuple):
    """The resized images of an `ImageDataset`."""

    train: CachedImages
    test: CachedImages


def pipelines(
    data: ImageDataset,
    rule: HyperRule,
    cache_dir: str | os.PathLike | None = None,
    *,
    test_edge: int | None = None,
    dtype: str = "float32",
    mix_in_model: bool = False,
    seed: int = 0,
    initial_step: int = 0,
    shard: tuple[int, int] | None = None,
) -> "tuple[tf.data.Dataset, tf.data.Dataset]":
    """Makes the training and test data sets that `rule` asks for.

    Every image is decoded and resized once, bilinear without antialiasing, and cached as uint8.
    Training: each image exactly once an epoch, in an order that is new in every epoch; random
    crop; random horizontal flip; batches of `rule.batch_size`, which run on from one epoch into
    the next; MixUp over the whole batch; micro-batches of `rule.micro_batch_size`. Test: only
    resized, in order. These are the steps of the authors' `input_pipeline_tf2_or_jax.py`, with a
    full shuffle in place of a shuffle buffer. What a step receives depends on `seed` and its number
    alone: a run can resume at any step as if it had never stopped. With a backend other than
    TensorFlow, TensorFlow's GPUs are hidden from it (unless it has already used one), so that it
    takes no memory from the backend.

    Args:
        data: `ImageDataset`, from `image_folder` and its like.
        rule: `HyperRule`.
        cache_dir: Folder for the resized images, `cache_size(count, edge)` bytes for each side,
            which later runs use again. With `None` all of them are held in memory.
        test_edge: Height and width of test images in pixels; by default `rule.crop_size`, as in
            the authors' code (their blog post takes `rule.resize_edge`).
        dtype: `"float32"` for images in [0, 1]; `"uint8"` for images in [0, 255], rounded after
            mixing, which are a quarter of the bytes on the way to an accelerator.
        mix_in_model: `True` leaves the mixing of images, the larger part of the work for a batch,
            to a `MixUp` layer at the front of the model; labels are mixed here. Needs whole batches
            (`rule.accumulation_steps` of 1).
        seed: Non-negative integer for order and augmentation.
        initial_step: Number of optimizer updates already done, as in `optimizer.iterations`; an
            update takes `rule.accumulation_steps` batches.
        shard: `(index, count)` where `count` processes train together, each on its part of every
            batch: the parts, in the order of the processes, are the batches of one process, with
            the same order, crops and mixes. An image's partner in MixUp may belong to another
            process: both read it from their caches. By default that of `keras.distribution`, which
            must leave the sharding to this function: `auto_shard_dataset=False`.

    Returns:
        Tuple `(train, test)` of `tf.data.Dataset`s of `(images, labels)`: images
        `(rule.micro_batch_size, edge, edge, 3)` of `dtype`; labels, float32, one-hot,
        `(rule.micro_batch_size, data.num_classes)`. `train` never ends. `test` holds every image
        once, and its last batch may be smaller. With `mix_in_model` the dict
        `{"images": images, "weight": weight}` takes the place of `images`: the MixUp weight of the
        batch, once for each of its images, float32; 1 in `test`.

        With `shard`, batches hold their part of these rows. Where devices cannot share the test
        images evenly, as JAX must, the last batch is filled up and `test` yields `(images, labels,
        weights)`, with the weight 0 for what was filled in: the loss, and `weighted_metrics` of
        `compile`, are those of the images.

    Raises:
        ImportError: If TensorFlow, needed with every backend for its `tf.data`, is missing.
        TypeError: If `data` is something else than an `ImageDataset`, `cache_dir` than a path.
        ValueError: If an argument is out of range, or no image of a side can be read.
        MemoryError: If `cache_dir` is `None` and the images need more memory than is available.
        OSError: If the disk has too little room for the images.

    Example:

    >>> data = keras_bit.digits()
    >>> rule = keras_bit.HyperRule(data.image_size, data.train_size, batch_size=64)
    >>> train, test = keras_bit.pipelines(data, rule)
    >>> [tuple(part.shape) for part in next(iter(train))]
    [(64, 128, 128, 3), (64, 10)]

    Mixed on the accelerator, which is fed bytes (what to save is the `classifier`):

    >>> images = keras.Input((128, 128, 3), dtype="uint8", name="images")
    >>> inputs = {"images": images, "weight": keras.Input((), name="weight")}
    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25, value_range=(0, 255))
    >>> classifier = keras_bit.BiTClassifier(backbone, data.num_classes)
    >>> model = keras.Model(inputs, classifier(keras_bit.MixUp()(inputs)))
    >>> train, test = keras_bit.pipelines(data, rule, dtype="uint8", mix_in_model=True)
    """
    options = dtype, mix_in_model, seed, initial_step
    _check_options(rule, *options)
    part = Shard.of(rule, shard)
    cached = cache_splits(data, rule, cache_dir, test_edge)
    return make_pipelines(cached, data.num_classes, rule, *options, part)


def cache_splits(
    data: ImageDataset,
    rule: HyperRule,
    cache_dir: str | os.PathLike | None = None,
    test_edge: int | None = None,
) -> CachedSplits:
    """The first step of `pipelines`: every image decoded and resized, or found in `cache_dir`."""
    check_dataset(data)
    check_cache_dir(cache_dir)
    test_edge = check_integer("test_edge", rule.crop_size if test_edge is None else test_edge, 1)
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "`pipelines` needs TensorFlow for its `tf.data`, with every Keras backend. "
            "Install it: `pip install tensorflow`, or `tensorflow-cpu` beside another backend."
        ) from error
    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # TensorFlow already uses its GPUs
            tf.config.set_visible_devices([], "GPU")
    test = cache_images_together(data.test, test_edge, "test", cache_dir)
    train = cache_images_together(data.train, rule.resize_edge, "train", cache_dir)
    return CachedSplits(train, test)


def make_pipelines(
    cached: CachedSplits,
    num_classes: int,
    rule: HyperRule,
    dtype: str = "float32",
    mix_in_model: bool = False,
    seed: int = 0,
    initial_step: int = 0,
    shard: Shard | None = None,
) -> "tuple[tf.data.Dataset, tf.data.Dataset]":
    """The second step of `pipelines`: the training and test data sets of cached images."""
    import tensorflow as tf

    shard = shard or Shard.of(rule)
    _check_options(rule, dtype, mix_in_model, seed, initial_step)
    common = num_classes, rule, dtype, mix_in_model, shard
    with tf.device("CPU"):
        train = _training_batches(cached.train, *common, seed, int(initial_step))
        return train, _test_batches(cached.test, *common)


def check_cache_dir(cache_dir: Any) -> None:
    """Raises where `cache_dir` is neither `None` nor the path of a folder."""
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise TypeError(
            "`cache_dir` must be the path of a folder, or None for a cache in memory. "
            f"Received: cache_dir={cache_dir!r}"
        )
    if cache_dir == "":
        raise ValueError(
            '`cache_dir` must name a folder. Received: cache_dir="". Pass "." for the working '
            "folder, or None for a cache in memory."
        )


def _check_options(rule, dtype, mix_in_model, seed, initial_step):
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}")
    check_integer("initial_step", initial_step, minimum=0)
    check_integer("seed", seed, minimum=0)
    check_boolean("mix_in_model", mix_in_model)
    if mix_in_model and rule.mixup_alpha and rule.accumulation_steps > 1:
        raise ValueError(
            "`mix_in_model` needs whole batches, since an image's partner may lie in another "
            f"micro-batch. Received: batch_size={rule.batch_size}, "
            f"micro_batch_size={rule.micro_batch_size}. Leave mixing to the pipeline, or make "
            "both sizes equal."
        )


def _training_batches(cached, num_classes, rule, dtype, mix_in_model, shard, seed, initial_step):
    import tensorflow as tf

    from keras_bit.data.sampler import Sampler, crop_batch

    sampler = Sampler(len(cached), rule, seed)
    # Through DLPack a tensor has the array's memory, and a memory-mapped file stays on disk.
    images = tf.experimental.dlpack.from_dlpack(cached.images.__dlpack__())
    mixup: Any = MixUp(rule.mixup_alpha) if rule.mixup_alpha else None
    size = rule.micro_batch_size // shard.count

    @tf.autograph.experimental.do_not_convert
    def micro_batches(step, positions):
        indices = tf.data.Dataset.from_tensor_slices(_micro_batches(rule, shard))
        return indices.map(lambda indices: (step, tf.gather(positions, indices), indices))

    def make_batch(step, positions, indices):
        labels = tf.one_hot(tf.gather(cached.labels, positions), num_classes)
        weight = mixup.draw_weight(sampler.weight_seed(step)) if mixup else 1.0
        if mix_in_model:
            labels = mixup.mix(labels, labels, weight)[1][:size] if mixup else labels
            positions, indices = positions[:size], indices[:size]
        crops = sampler.crops(step).take(indices)
        cropped = crop_batch(images, tf.gather(cached.rows, positions), crops, rule.crop_size)
        if mix_in_model:
            return {"images": _convert(cropped, dtype), "weight": tf.repeat(weight, size)}, labels
        return mix(cropped, labels, weight) if mixup else (_convert(cropped, dtype), labels)

    # Compiled, mixing reads memory once: ten times as fast as one operation after another.
    @tf.function(jit_compile=True, autograph=False)
    def mix(images, labels, weight):
        parts = mixup.mix(tf.cast(images, tf.float32), labels, weight)
        images, labels = (part[:size] for part in parts)
        # The weights are rounded: two whites can sum to a little more than white.
        return _convert(tf.minimum(images, 255.0), dtype), labels

    steps = tf.data.Dataset.counter(initial_step)
    batches = tf.data.Dataset.zip(steps, sampler.positions(initial_step)).flat_map(micro_batches)
    batches = _map_ahead(batches, make_batch, rule, rule.crop_size, dtype)
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _test_batches(cached, num_classes, rule, dtype, mix_in_model, shard):
    import tensorflow as tf

    images = tf.experimental.dlpack.from_dlpack(cached.images.__dlpack__())

    def make_batch(positions, weights=None):
        labels = tf.one_hot(tf.gather(cached.labels, positions), num_classes)
        batch = _convert(tf.gather(images, tf.gather(cached.rows, positions)), dtype)
        if mix_in_model:
            batch = {"images": batch, "weight": tf.ones(tf.shape(batch)[0])}
        return (batch, labels) if weights is None else (batch, labels, weights)

    parts = shard.test_positions(len(cached), rule.micro_batch_size)
    rows = tf.data.Dataset.from_tensor_slices(parts).batch(rule.micro_batch_size // shard.count)
    return _map_ahead(rows, make_batch, rule, images.shape[1], dtype)


def _micro_batches(rule, shard):
    """Indices in the batch of the images that each micro-batch needs, a row for each micro-batch.

    With MixUp these are its own images, then their partners from the other end of the batch, in
    the order in which mixing all of them with their reverse gives the micro-batch as first half.
    """
    size = rule.micro_batch_size // shard.count
    own = np.arange(rule.batch_size).reshape(-1, shard.count, size)[:, shard.index]
    if not rule.mixup_alpha or size == rule.batch_size:
        return own
    return np.concatenate([own, rule.batch_size - 1 - own[:, ::-1]], axis=1)


def _convert(images, dtype):
    """`images`, in [0, 255], as uint8, or as float32 in [0, 1]."""
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def convert(images):
        if dtype == "uint8":
            return tf.cast(tf.round(images), tf.uint8)
        return tf.cast(images, tf.float32) * (1 / 255)

    return images if images.dtype == dtype == "uint8" else convert(images)


def _map_ahead(dataset, make_batch, rule, edge, dtype):
    """Makes batches in parallel, as many as memory allows."""
    import tensorflow as tf

    bytes_per_batch = cache_size(rule.micro_batch_size, edge) * np.dtype(dtype).itemsize
    ahead = max(1, min(os.cpu_count() or 1, BYTES_AHEAD // bytes_per_batch))
    make_batch = tf.autograph.experimental.do_not_convert(make_batch)
    # To optimize a pipeline, TensorFlow writes it out as a graph, and with it a copy of all images.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    batches = dataset.map(make_batch, num_parallel_calls=ahead).prefetch(1)
    return batches.with_options(options)
