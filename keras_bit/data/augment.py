"""What BiT-HyperRule does to single training images, as a layer for `tf.data` and models."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bit.core.saving import register
from keras_bit.hyperrule.rule import HyperRule, check_rule
from keras_bit.layers.seeded import SeededLayer, generator_of, on_tensorflow

FLIP_PROBABILITY = 0.5


@register
class Augment(SeededLayer):
    """Resizes, crops and flips training images as a rule says, in a `tf.data` pipeline of your own.

    An image is resized to `rule.resize_edge` x `rule.resize_edge`, bilinear without antialiasing
    and whatever its proportions, as the released BiT weights were trained; then cropped to
    `rule.crop_size` at a random place; then flipped left to right with probability 0.5 if
    `rule.random_flip`. Every image has a place and a flip of its own, in a batch, too
    (`keras.layers.RandomCrop` takes one place for a whole batch). With `training=False` it is
    resized straight to `rule.crop_size`, as `keras_bit.pipelines` does with test images.

    Use it in `Dataset.map`, with any Keras backend, or inside a model: before `batch`, where images
    may differ in size, or after it. `keras_bit.MixUp` follows after `batch`. Drawing (`draw`) and
    applying (`apply`) are separate methods; `apply` is pure.

    Args:
        rule: `HyperRule`, of which `resize_edge`, `crop_size` and `random_flip` count. A rule with
            `random_crop=False` has both sizes equal: nothing is left to crop.
        seed: Non-negative integer. The same seed gives the same sequence of draws in every run, and
            the sequence continues from epoch to epoch. In `Dataset.map` leave `num_parallel_calls`
            at its default for that: parallel calls draw in no fixed order.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        images: Tensor (height, width, 3) or (batch, height, width, 3), uint8 or float. Its static
            shape may be unknown, in part or (then it must be a single image) altogether.
        labels: Anything, such as the label that comes with an image in `Dataset.map`. It is passed
            through: the result is then the tuple `(images, labels)`.
        training: Boolean; `False` for test images.

    Returns:
        Images of `crop_size` x `crop_size` pixels, float32, in the value range they had.

    Raises:
        TypeError: If `rule` is no `HyperRule`, or images are no tensor.
        ValueError: If images are not RGB, or `seed` is not a non-negative integer.

    Example:

    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=50_000, batch_size=4)
    >>> images, labels = np.zeros((8, 40, 50, 3), "uint8"), np.eye(8, dtype="float32")
    >>> dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    >>> dataset = dataset.map(keras_bit.Augment(rule, seed=0)).batch(4, drop_remainder=True)
    >>> dataset = dataset.map(keras_bit.MixUp(rule.mixup_alpha, seed=0))
    >>> dataset.element_spec[0].shape
    TensorShape([4, 128, 128, 3])
    """

    def __init__(self, rule: HyperRule, seed: int | None = None, **kwargs: Any) -> None:
        # Under a policy of float16, values up to 255 would be rounded. `apply` casts itself.
        super().__init__(seed, **{"dtype": "float32", "autocast": False, **kwargs})
        self.rule = check_rule(rule)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        _check_images(images)
        if on_tensorflow(images):
            images = _with_known_rank(images)
        return super().__call__(images, *args, **kwargs)

    def call(self, images: Any, labels: Any = None, training: bool = True) -> Any:
        single = len(images.shape) == 3
        images = images[None] if single else images
        if training:
            count = _functions(images).shape(images)[0]
            crops = self.draw(count, self.next_tensorflow_seed(images))
            images = self.apply(images, *crops)
        else:
            images = self._resize(images, self.rule.crop_size)
        images = images[0] if single else images
        return images if labels is None else (images, labels)

    def draw(self, count: Any, seed: Any = None) -> tuple[Any, Any, Any]:
        """Draws where images are cropped and whether they are flipped.

        Args:
            count: Number of images.
            seed: Integer tensor of shape (2,); the draws are then a pure function of it
                (a different one where XLA compiles TensorFlow's code, which changes the random
                numbers). With `None` it is the next of the layer's own sequence.

        Returns:
            A tuple `(tops, lefts, flips)` of tensors (count,): first rows and first columns, int32
            from 0 to `rule.resize_edge - rule.crop_size`; booleans, whether mirrored.
        """
        seed = self.generator.next() if seed is None else seed
        numbers = _uniform(seed, count)
        offsets = self.rule.resize_edge - self.rule.crop_size + 1
        places = _functions(numbers).cast(numbers[:2] * offsets, "int32")
        flips = numbers[2] < (FLIP_PROBABILITY if self.rule.random_flip else 0.0)
        return places[0], places[1], flips

    def apply(self, images: Any, tops: Any, lefts: Any, flips: Any) -> Any:
        """Resizes images and cuts given crops out of them; a pure function.

        Args:
            images: Tensor (batch, height, width, 3).
            tops, lefts, flips: Tensors (batch,), as `draw` gives them.

        Returns:
            Tensor (batch, `rule.crop_size`, `rule.crop_size`, 3), float32.
        """
        images = self._resize(images, self.rule.resize_edge)
        functions = _functions(images)
        tops, lefts, flips, steps = map(
            functions.convert_to_tensor,
            (tops, lefts, flips, np.arange(self.rule.crop_size, dtype=np.int32)),
        )
        columns = functions.where(flips[:, None], self.rule.crop_size - 1 - steps, steps)
        columns = columns + lefts[:, None]
        return _take(images, tops[:, None] + steps, columns)

    def compute_output_shape(self, images_shape: Any, labels_shape: Any = None) -> Any:
        edge = self.rule.crop_size
        shape = (*images_shape[:-3], edge, edge, 3)
        return shape if labels_shape is None else (shape, labels_shape)

    def compute_output_spec(self, images: Any, labels: Any = None, training: bool = True) -> Any:
        spec = keras.KerasTensor(self.compute_output_shape(images.shape), self.compute_dtype)
        if labels is None:
            return spec
        return spec, keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), labels)

    def get_config(self) -> dict[str, Any]:
        rule = keras.saving.serialize_keras_object(self.rule)
        return {**super().get_config(), "rule": rule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Augment":
        return cls(**{**config, "rule": keras.saving.deserialize_keras_object(config["rule"])})

    def _resize(self, images, edge):
        images = _functions(images).cast(images, "float32")
        if not on_tensorflow(images):
            options = {"interpolation": "bilinear", "data_format": "channels_last"}
            resized = ops.image.resize(images, (edge, edge), **options)
        else:
            import tensorflow as tf

            resized = tf.image.resize(images, (edge, edge))
        return _functions(resized).cast(resized, self.compute_dtype)


def _functions(x):
    """TensorFlow's functions for its tensors, whatever the backend of Keras; else Keras's."""
    if not on_tensorflow(x):
        return ops
    import tensorflow as tf

    return tf


def _uniform(seed, count):
    """Floats in [0, 1) of shape (3, count)."""
    if on_tensorflow(seed):
        import tensorflow as tf

        seed = tf.cast(seed, "int32")  # wraps 64-bit seeds around
        return tf.random.stateless_uniform((3, count), seed, alg="philox")
    if keras.backend.backend() == "torch":
        # At most 1 - 2**-23, as of the others: times a number of places it does not round to it.
        numbers = generator_of(seed).integers(0, 2**23, (3, count)) / 2**23
        return ops.convert_to_tensor(numbers, "float32")
    import jax

    return jax.random.uniform(ops.cast(seed, "uint32"), (3, count), "float32")


def _take(images, rows, columns):
    """The pixels in these rows (batch, edge) and columns (batch, edge) of each image."""
    if not on_tensorflow(images):
        images = ops.take_along_axis(images, rows[:, :, None, None], axis=1)
        return ops.take_along_axis(images, columns[:, None, :, None], axis=2)
    import tensorflow as tf

    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _with_known_rank(images):
    """A tensor of TensorFlow's, with a rank and three channels even if its shape is unknown."""
    import tensorflow as tf

    single = images.shape.rank in (3, None)
    return tf.ensure_shape(images, (None, None, 3) if single else (None, None, None, 3))


def _check_images(images):
    shape = getattr(images, "shape", None)
    if shape is None or type(images).__name__ == "RaggedTensor":
        raise TypeError(
            "`images` must be a tensor of images. Received: "
            f"{type(images).__name__}. Of a dict, pass the images alone; of images of several "
            "sizes, one after another, before `batch`."
        )
    rank = shape.rank if hasattr(shape, "rank") else len(shape)
    if rank is not None and (rank not in (3, 4) or shape[-1] not in (3, None)):
        raise ValueError(
            "`images` must be RGB images of shape (height, width, 3) or (batch, height, width, 3). "
            f"Received: images.shape={tuple(shape)}"
        )
