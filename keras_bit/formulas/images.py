"""Batches of formula images without end, labelled by the formula they were made with."""

import functools

import keras
import numpy as np
from keras import ops

from keras_bit.checks import check_integer
from keras_bit.formulas import contours, draws, fractals, leaves, networks, scenes, textures

FAMILIES = {
    "contours": contours,
    "fractals": fractals,
    "leaves": leaves,
    "networks": networks,
    "scenes": scenes,
    "textures": textures,
}
# What a stream of random numbers is for.
_CLASSES, _PICTURES = 0, 1


class FormulaImages(keras.utils.PyDataset):
    """Batches of images drawn by formula, as `fit` takes them; no image comes twice.

    A class is a set of a formula's parameters. Its images share them, up to a little jitter, and
    differ in the rest: view, colours, light, what lies before and behind. Families of formulas
    have classes of their own and equal shares of a batch.

    Parameters are drawn in NumPy, images are rendered in `keras.ops`, compiled, on the device.

    Args:
        families: Names of families: "contours", "fractals", "leaves", "networks", "scenes",
            "textures".
        classes: Number of classes of each family.
        batch_size: Images in a batch, a multiple of the number of families.
        batches: Batches of an epoch.
        start: Number of the first batch in the endless sequence.
        image_size: Edge of the images in pixels.
        seed: Integer from 0, which decides the classes and all batches.
        **kwargs: Further arguments of `keras.utils.PyDataset`, such as `workers`.

    Each batch is `(images, labels)`: float32 (batch, image_size, image_size, 3) in [0, 1], and
    int32 (batch,).

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> images, labels = FormulaImages(["textures"], classes=10, batch_size=4, batches=1)[0]
    >>> images.shape, labels.shape
    ((4, 64, 64, 3), (4,))
    """

    def __init__(
        self, families, classes, batch_size, batches, *, start=0, image_size=64, seed=0, **kwargs
    ):
        super().__init__(**kwargs)
        self.families = check_families(families)
        self.classes = check_integer("classes", classes, minimum=2)
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.batches = check_integer("batches", batches, minimum=1)
        self.start = check_integer("start", start, minimum=0)
        self.image_size = check_integer("image_size", image_size, minimum=8)
        self.seed = check_integer("seed", seed, minimum=0)
        if batch_size % len(self.families):
            raise ValueError(
                "`batch_size` must be a multiple of the number of families, which have equal "
                f"shares. Received: batch_size={batch_size}, {len(self.families)} families"
            )

    @property
    def num_classes(self):
        """Number of classes of all families."""
        return len(self.families) * self.classes

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        random = draws.stream(self.seed, _PICTURES, self.start + index)
        images, labels = [], []
        for number, family in enumerate(self.families):
            chosen = random.randint(0, self.classes, self.batch_size // len(self.families))
            rows = _chosen(_class_rows(family, self.classes, self.seed), chosen)
            parameters = FAMILIES[family].draw(random, rows)
            images.append(ops.convert_to_numpy(_renderer(family, self.image_size)(parameters)))
            labels.append(number * self.classes + chosen)
        return np.concatenate(images), np.concatenate(labels).astype("int32")


def check_families(families):
    """Returns `families` as a tuple; raises where one of them is unknown or named twice."""
    names = tuple(families)
    if isinstance(families, str) or not names or len({*names} & {*FAMILIES}) < len(names):
        raise ValueError(
            f"`families` must be different names from {list(FAMILIES)}. "
            f"Received: families={families!r}"
        )
    return names


@functools.cache
def _class_rows(family, classes, seed):
    random = draws.stream(seed, _CLASSES, list(FAMILIES).index(family))
    return FAMILIES[family].classes(random, classes)


def _chosen(rows, indices):
    """The rows at `indices` of every array in a structure of dicts and lists."""
    return keras.tree.map_structure(lambda array: array[indices], rows)


@functools.cache
def _renderer(family, size):
    def render(parameters):
        return ops.clip(FAMILIES[family].render(parameters, size), 0.0, 1.0)

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(render)
    import tensorflow as tf

    return tf.function(render, jit_compile=True, autograph=False)
