"""Endless batches of synthetic images, labeled by the formula that made them."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.arguments import check_integer, check_seed
from keras_bit.core.random import frozen_stream
from keras_bit.pretraining.families import FAMILIES

_CLASSES, _IMAGES = 0, 1  # what a stream of random numbers is for


class SyntheticImages(keras.utils.PyDataset):
    """Batches of synthetic (formula-driven) images for `fit`; no image repeats.

    A class is a set of parameters of a formula. Its images share them, up to a small jitter, and
    differ in everything else: view, colors, light, background and occlusion. Each family of
    formulas has classes of its own and an equal share of a batch. Parameters are drawn in NumPy;
    images are rendered in compiled `keras.ops`, on the device.

    Args:
        families: Names of families: `"contours"`, `"fractals"`, `"leaves"`, `"networks"`,
            `"scenes"`, `"textures"`.
        classes: Number of classes of each family.
        batch_size: Number of images in a batch, a multiple of the number of families.
        batches: Number of batches in an epoch.
        start: Index of the first batch in the endless sequence.
        image_size: Height and width of the images in pixels, from 8.
        seed: Integer from 0 that determines the classes and all batches.
        **kwargs: Further arguments of `keras.utils.PyDataset`, such as `workers`.

    Each batch is `(images, labels)`: float32 (batch, image_size, image_size, 3) in [0, 1], and
    int32 (batch,).

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> from keras_bit.pretraining import SyntheticImages
    >>> images, labels = SyntheticImages(["textures"], classes=10, batch_size=4, batches=1)[0]
    >>> images.shape, labels.shape
    ((4, 64, 64, 3), (4,))
    """

    def __init__(
        self,
        families: Sequence[str],
        classes: int,
        batch_size: int,
        batches: int,
        *,
        start: int = 0,
        image_size: int = 64,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.families = tuple(families)
        if not 0 < len(self.families) == len({*self.families} & {*FAMILIES}):
            raise ValueError(
                f"`families` must be different names from {list(FAMILIES)}. "
                f"Received: families={families!r}"
            )
        self.classes = check_integer("classes", classes, minimum=2)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.batches = check_integer("batches", batches, minimum=1)
        self.start = check_integer("start", start, minimum=0)
        self.image_size = check_integer("image_size", image_size, minimum=8)
        self.seed = check_seed("seed", seed)
        if self.batch_size % len(self.families):
            raise ValueError(
                "`batch_size` must be a multiple of the number of families, which have equal "
                f"shares. Received: batch_size={batch_size}, {len(self.families)} families"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes of all families."""
        return len(self.families) * self.classes

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = frozen_stream(self.seed, _IMAGES, self.start + index)
        images, labels = [], []
        for number, family in enumerate(self.families):
            chosen = random.randint(0, self.classes, self.batch_size // len(self.families))
            rows = _class_rows(family, self.classes, self.seed)
            rows = keras.tree.map_structure(operator.itemgetter(chosen), rows)
            parameters = FAMILIES[family].draw(random, rows)
            images.append(ops.convert_to_numpy(_renderer(family, self.image_size)(parameters)))
            labels.append(number * self.classes + chosen)
        return np.concatenate(images), np.concatenate(labels).astype("int32")


@functools.cache
def _class_rows(family, classes, seed):
    random = frozen_stream(seed, _CLASSES, list(FAMILIES).index(family))
    return FAMILIES[family].classes(random, classes)


@functools.cache
def _renderer(family, size):
    def render(parameters):
        return ops.clip(FAMILIES[family].render(parameters, size), 0.0, 1.0)

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(render)
    if keras.backend.backend() == "torch":  # whose tensors do not mix with arrays
        return lambda parameters: render(keras.tree.map_structure(ops.array, parameters))
    import tensorflow as tf

    return tf.function(render, jit_compile=True, autograph=False)
