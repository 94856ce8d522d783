"""BiT-HyperRule's input pipeline: from an `ImageDataset` to training and test `tf.data`."""

import contextlib
import os

import keras
import numpy as np

from keras_bit.checks import check_integer
from keras_bit.data.cache import cache_images, cache_size
from keras_bit.data.sampler import Sampler, check_seed, crop_batch
from keras_bit.layers.mixup import MixUp

__all__ = ["cache_size", "pipelines"]

DTYPES = ("float32", "uint8")
BYTES_AHEAD = 2**28  # of batches in preparation; one of them alone keeps several cores busy


def pipelines(
    data,
    rule,
    cache_dir=None,
    *,
    test_edge=None,
    dtype="float32",
    mix_in_model=False,
    seed=0,
    initial_step=0,
):
    """Makes the training and test data sets that `rule` asks for.

    Every image is decoded and resized once, bilinear without antialiasing, and cached as uint8.
    Training: each image exactly once an epoch, in an order that is new in every epoch; random
    crop; random horizontal flip; batches of `rule.batch_size`, which run on from one epoch into
    the next; MixUp over the whole batch; pieces of `rule.micro_batch_size`. Test: only resized,
    in order. These are the steps of the authors' `input_pipeline_tf2_or_jax.py`, with a full
    shuffle in place of a shuffle buffer.

    What a training step receives depends on `seed` and the step's number alone: a run can go on
    at any step as if it had never stopped.

    With a backend other than TensorFlow, TensorFlow's GPUs are hidden from it (unless it has
    already used one), so that it takes no memory from the backend.

    Args:
        data: `ImageDataset`, from `image_folder` and its like.
        rule: `HyperRule`.
        cache_dir: Folder for the resized images, `cache_size(count, edge)` bytes for each side.
            Later runs on the same images use them again, and memory holds only what is in use.
            With `None` all resized images are held in memory.
        test_edge: Height and width of test images in pixels; by default `rule.crop_size`, as in
            the authors' code (their blog post takes `rule.resize_edge`).
        dtype: `"float32"` for images in [0, 1]; `"uint8"` for images in [0, 255], rounded after
            mixing, which are a quarter of the bytes on the way to an accelerator.
        mix_in_model: `True` leaves the mixing of images, the larger part of the work for a batch,
            to a `MixUp` layer at the front of the model: images come unmixed, each batch as a
            dict `{"images", "weight"}`. Labels are mixed here. Needs whole batches
            (`rule.accumulation_steps` of 1).
        seed: Non-negative integer for order and augmentation.
        initial_step: Number of optimizer updates already done, as in `optimizer.iterations`; an
            update takes `rule.accumulation_steps` batches.

    Returns:
        Tuple `(train, test)` of `tf.data.Dataset`s of `(images, labels)`: images
        `(rule.micro_batch_size, edge, edge, 3)` of `dtype`; labels
        `(rule.micro_batch_size, data.num_classes)`, float32, one-hot, mixed as the images are.
        `train` never ends. `test` is one pass, and its last batch may be smaller. With
        `mix_in_model` the place of `images` is taken by the dict `{"images": images, "weight":
        weight}`, `weight` float32 `(rule.batch_size,)`: the batch's MixUp weight, 1 in `test`.

    Raises:
        ImportError: If TensorFlow, needed with every backend for its `tf.data`, is missing.
        ValueError: If an argument is out of range, or no image of a side can be read.
        MemoryError: If `cache_dir` is `None` and the images need more memory than is available.
        OSError: If the disk has too little room for the images.

    Example:

    >>> data = keras_bit.digits()
    >>> rule = keras_bit.HyperRule(data.image_size, data.train_size, batch_size=64)
    >>> train, test = keras_bit.pipelines(data, rule)
    >>> images, labels = next(iter(train))
    >>> images.shape, labels.shape
    (TensorShape([64, 128, 128, 3]), TensorShape([64, 10]))

    Mixed on the accelerator, which is fed bytes:

    >>> inputs = {
    ...     "images": keras.Input((128, 128, 3), dtype="uint8", name="images"),
    ...     "weight": keras.Input((), dtype="float32", name="weight"),
    ... }
    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25, value_range=(0, 255))
    >>> classifier = keras_bit.BiTClassifier(backbone, data.num_classes)
    >>> model = keras.Model(inputs, classifier(keras_bit.MixUp()(inputs)))
    >>> train, test = keras_bit.pipelines(data, rule, dtype="uint8", mix_in_model=True)

    `model.fit` trains the `classifier`, which is what to save.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}")
    initial_step = check_integer("initial_step", initial_step, minimum=0)
    if test_edge is not None:
        test_edge = check_integer("test_edge", test_edge, minimum=1)
    seed = check_seed(seed)
    if mix_in_model and rule.mixup_alpha and rule.accumulation_steps > 1:
        raise ValueError(
            "`mix_in_model` needs whole batches, for an image's partner may lie in another "
            f"micro-batch. Received: batch_size={rule.batch_size}, "
            f"micro_batch_size={rule.micro_batch_size}. Leave mixing to the pipeline, or make "
            "both sizes equal."
        )
    tf = _import_tensorflow()
    test_images = cache_images(data.test, test_edge or rule.crop_size, "test", cache_dir)
    train_images = cache_images(data.train, rule.resize_edge, "train", cache_dir)
    with tf.device("CPU"):
        train = _training_batches(
            train_images, data.num_classes, rule, dtype, mix_in_model, seed, initial_step
        )
        test = _test_batches(test_images, data.num_classes, rule, dtype, mix_in_model)
    return train, test


def _import_tensorflow():
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "`pipelines` needs TensorFlow for its `tf.data`, with every Keras backend. "
            "Install it: `pip install tensorflow`, or `tensorflow-cpu` beside another backend."
        ) from error
    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # TensorFlow has already taken hold of its GPUs
            tf.config.set_visible_devices([], "GPU")
    return tf


def _training_batches(cached, num_classes, rule, dtype, mix_in_model, seed, initial_step):
    import tensorflow as tf

    sampler = Sampler(len(cached), rule, seed)
    images = _as_tensor(cached.images)
    mixup = MixUp(rule.mixup_alpha) if rule.mixup_alpha else None

    @tf.autograph.experimental.do_not_convert
    def pieces(step, positions):
        numbers = tf.data.Dataset.range(rule.accumulation_steps)
        return numbers.map(lambda piece: (step, tf.gather(positions, _places(piece, rule)), piece))

    def make_batch(step, positions, piece):
        windows = sampler.windows(step).take(_places(piece, rule))
        crops = crop_batch(images, tf.gather(cached.rows, positions), windows, rule.crop_size)
        labels = tf.one_hot(tf.gather(cached.labels, positions), num_classes)
        weight = mixup.draw_weight(sampler.weight_seed(step)) if mixup else 1.0
        if mix_in_model:
            labels = mixup.mix(crops, labels, weight)[1] if mixup else labels
            return _with_weight(_convert(crops, dtype), weight), labels
        return mix(crops, labels, weight) if mixup else (_convert(crops, dtype), labels)

    # Compiled, mixing is one pass over memory: ten times as fast as one operation after another.
    @tf.function(jit_compile=True, autograph=False)
    def mix(images, labels, weight):
        parts = mixup.mix(tf.cast(images, tf.float32), labels, weight)
        images, labels = (part[: rule.micro_batch_size] for part in parts)
        # The weights are rounded: two whites can sum to a little more than white.
        return _convert(tf.minimum(images, 255.0), dtype), labels

    steps = tf.data.Dataset.counter(initial_step)
    batches = tf.data.Dataset.zip(steps, sampler.positions(initial_step)).flat_map(pieces)
    batches = _map_ahead(batches, make_batch, rule, rule.crop_size, dtype)
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def _test_batches(cached, num_classes, rule, dtype, mix_in_model):
    import tensorflow as tf

    images = _as_tensor(cached.images)

    def make_batch(positions):
        labels = tf.one_hot(tf.gather(cached.labels, positions), num_classes)
        batch = _convert(tf.gather(images, tf.gather(cached.rows, positions)), dtype)
        return _with_weight(batch, 1.0) if mix_in_model else batch, labels

    positions = tf.data.Dataset.range(len(cached)).batch(rule.micro_batch_size)
    return _map_ahead(positions, make_batch, rule, images.shape[1], dtype)


def _as_tensor(array):
    """`array` as a tensor in the same memory, so that a memory-mapped file stays on disk."""
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _places(piece, rule):
    """Places in its batch of the images that micro-batch `piece` is made of.

    With MixUp these are its own images, then their partners from the other end of the batch, in
    the order in which mixing all of them with their reverse gives the micro-batch as first half.
    """
    import tensorflow as tf

    own = piece * rule.micro_batch_size + tf.range(rule.micro_batch_size, dtype=tf.int64)
    if not rule.mixup_alpha or rule.accumulation_steps == 1:
        return own
    return tf.concat([own, rule.batch_size - 1 - own[::-1]], axis=0)


def _with_weight(images, weight):
    """What a `MixUp` layer takes: images and their batch's weight, once for each of them."""
    import tensorflow as tf

    return {"images": images, "weight": tf.repeat(weight, tf.shape(images)[0])}


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
