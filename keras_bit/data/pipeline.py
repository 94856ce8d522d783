"""BiT-HyperRule's input pipeline: from an `ImageDataset` to training and test batches."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras

from keras_bit.core.arguments import check_boolean, check_integer
from keras_bit.core.device import has_tensorflow
from keras_bit.data.batches import BatchSpec
from keras_bit.data.cache import CachedImages
from keras_bit.data.class_weight import ClassWeight, resolve_class_weight
from keras_bit.data.dataset import ImageDataset, check_dataset
from keras_bit.data.shard import Shard
from keras_bit.data.shared_cache import cache_images_together
from keras_bit.hyperrule.rule import HyperRule, check_rule

if TYPE_CHECKING:
    import tensorflow as tf

    Batches: TypeAlias = tf.data.Dataset | keras.utils.PyDataset

DTYPES = ("float32", "uint8")


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
    class_weight: ClassWeight | None = None,
    py_dataset: bool | None = None,
) -> "tuple[Batches, Batches]":
    """Makes the training and test data sets that `rule` asks for.

    Every image is decoded and resized once, bilinear without antialiasing, and cached as uint8.
    Training: each image exactly once an epoch, in an order that is new in every epoch; random
    crop; random horizontal flip; batches of `rule.batch_size`, which run on from one epoch into
    the next; MixUp over the whole batch; micro-batches of `rule.micro_batch_size`. Test: only
    resized, in order. These are the steps of the authors' `input_pipeline_tf2_or_jax.py`, with a
    full shuffle in place of a shuffle buffer. What a step receives depends on `seed` and its number
    alone: a run can resume at any step as if it had never stopped.

    The batches come as `tf.data` or, made by NumPy, as `keras.utils.PyDataset`, the same to the
    bit. `tf.data` is the default where TensorFlow is installed, with every backend of Keras; with
    another one TensorFlow's GPUs are hidden from it (unless it has already used one), so that it
    takes no memory from the backend.

    Args:
        data: `ImageDataset`, from `image_folder` and its like.
        rule: `HyperRule`.
        cache_dir: Folder for the resized images, 3 bytes a pixel, which later runs use again.
            With `None` all of them are held in memory.
        test_edge: Height and width of test images in pixels; by default `rule.crop_size`, as in
            the authors' code (their blog post takes `rule.resize_edge`).
        dtype: `"float32"` for images in [0, 1]; `"uint8"` for images in [0, 255], rounded after
            mixing, which are a quarter of the bytes on the way to an accelerator.
        mix_in_model: `True` leaves the mixing of images, the larger part of the work for a batch,
            to a `MixUp` layer at the front of the model; labels are mixed here. Needs whole batches
            (`rule.accumulation_steps` of 1; with `shard` Keras on JAX, which joins the parts).
        seed: Non-negative integer for order and augmentation.
        initial_step: Number of optimizer updates already done, as in `optimizer.iterations`; an
            update takes `rule.accumulation_steps` batches.
        shard: `(index, count)` where `count` processes train together, each on its part of every
            batch: the parts, in the order of the processes, are the batches of one process, with
            the same order, crops and mixes. An image's partner in MixUp may belong to another
            process: both read it from their caches. By default that of `keras.distribution`, which
            must leave the sharding to this function: `auto_shard_dataset=False`.
        class_weight: How much the training images of each class count, as in `fit`, which cannot
            weight labels that are mixed: `"balanced"` for the same of each class,
            `images / (classes * images of the class)`; or a dict from class ids or names to
            weights (1 for those that it lacks), or a sequence of all. By default all images count
            alike.
        py_dataset: `True` for `keras.utils.PyDataset`s, which need no TensorFlow, `False` for
            `tf.data`. By default `tf.data` where TensorFlow is installed.

    Returns:
        Tuple `(train, test)` of `tf.data.Dataset`s, or of `keras.utils.PyDataset`s, which make
        batches ahead in threads of their own, of `(images, labels)`: images
        `(rule.micro_batch_size, edge, edge, 3)` of `dtype`; labels, float32, one-hot, or multi-hot
        where `data.multi_label`, `(rule.micro_batch_size, data.num_classes)`. `train` never ends.
        `test` holds every image once, and its last batch may be smaller. With `mix_in_model` the
        dict `{"images": images, "weight": weight}` takes the place of `images`: the MixUp weight of
        the batch, once for each of its images, float32; 1 in `test`.

        With `shard`, batches hold their part of these rows. Where devices cannot share the test
        images evenly, as JAX must, the last batch is filled up and `test` yields `(images, labels,
        weights)`, with the weight 0 for what was filled in: the loss, and `weighted_metrics` of
        `compile`, are those of the images.

        With `class_weight`, `train` yields `(images, labels, weights)`, float32
        `(rule.micro_batch_size,)`: the class's weight, or for a mixed image the weights of its
        classes mixed as its labels are.

    Raises:
        ImportError: If TensorFlow is missing and `py_dataset` is `False`.
        TypeError: If `data` is something else than an `ImageDataset`, `rule` than a `HyperRule`,
            `cache_dir` than a path.
        ValueError: If an argument is out of range, or no image of a side can be read.
        MemoryError: If `cache_dir` is `None` and the images need more memory than is available.
        OSError: If the disk has too little room for the images.

    Example:

    >>> data = keras_bit.digits()
    >>> rule = keras_bit.HyperRule(data.image_size, data.train_size, batch_size=64)
    >>> train, test = keras_bit.pipelines(data, rule)
    >>> [tuple(part.shape) for part in next(iter(train))]
    [(64, 128, 128, 3), (64, 10)]

    Without TensorFlow:

    >>> train, test = keras_bit.pipelines(data, rule, py_dataset=True)
    >>> images, labels = train[0]
    >>> images.shape, labels.shape, len(test)
    ((64, 128, 128, 3), (64, 10), 6)

    Mixed on the accelerator, which is fed bytes (what to save is the `classifier`):

    >>> images = keras.Input((128, 128, 3), dtype="uint8", name="images")
    >>> inputs = {"images": images, "weight": keras.Input((), name="weight")}
    >>> backbone = keras_bit.BiTBackbone((1, 1, 1, 1), width=0.25, value_range=(0, 255))
    >>> classifier = keras_bit.BiTClassifier(backbone, data.num_classes)
    >>> model = keras.Model(inputs, classifier(keras_bit.MixUp()(inputs)))
    >>> train, test = keras_bit.pipelines(data, rule, dtype="uint8", mix_in_model=True)
    """
    check_dataset(data)
    options = dtype, mix_in_model, seed, initial_step
    _check_options(rule, *options, py_dataset)
    part = Shard.of(rule, shard)
    if part.count > 1 and mix_in_model and rule.mixup_alpha and not _parts_are_joined():
        raise ValueError(
            "`mix_in_model` needs whole batches, which Keras joins from the parts of several "
            f"processes on JAX. Received: shard=({part.index}, {part.count}), backend "
            f"{keras.backend.backend()!r}. Leave mixing to the pipeline."
        )
    weights = resolve_class_weight(class_weight, data)
    cached = cache_splits(data, rule, cache_dir, test_edge)
    return make_pipelines(cached, data.num_classes, rule, *options, part, weights, py_dataset)


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
    class_weights: tuple[float, ...] | None = None,
    py_dataset: bool | None = None,
) -> "tuple[Batches, Batches]":
    """The second step of `pipelines`: the training and test data sets of cached images."""
    shard = shard or Shard.of(rule)
    _check_options(rule, dtype, mix_in_model, seed, initial_step, py_dataset)
    options = rule, dtype, mix_in_model, seed, int(initial_step), shard, class_weights
    spec = BatchSpec(num_classes, *options)
    if not has_tensorflow() if py_dataset is None else py_dataset:
        from keras_bit.data.py_batches import py_batches

        return py_batches(*cached, spec)
    from keras_bit.data.tf_batches import tf_batches

    return tf_batches(*cached, spec)


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


def _parts_are_joined():
    return keras.backend.backend() == "jax"


def _require_tensorflow():
    if not has_tensorflow():
        raise ImportError(
            "`py_dataset=False` needs TensorFlow for its `tf.data`, with every Keras backend. "
            "Install it, `pip install tensorflow`, or leave the argument out."
        )


def _check_options(rule, dtype, mix_in_model, seed, initial_step, py_dataset):
    check_rule(rule)
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}")
    check_integer("initial_step", initial_step, minimum=0)
    check_integer("seed", seed, minimum=0)
    check_boolean("mix_in_model", mix_in_model)
    if py_dataset is not None and not check_boolean("py_dataset", py_dataset):
        _require_tensorflow()
    if mix_in_model and rule.mixup_alpha and rule.accumulation_steps > 1:
        raise ValueError(
            "`mix_in_model` needs whole batches, since an image's partner may lie in another "
            f"micro-batch. Received: batch_size={rule.batch_size}, "
            f"micro_batch_size={rule.micro_batch_size}. Leave mixing to the pipeline, or make "
            "both sizes equal."
        )
