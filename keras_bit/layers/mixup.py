"""MixUp as BiT uses it: one weight for a batch, which is mixed with itself reversed."""

from functools import partial
from typing import Any

import keras
from keras import ops

from keras_bit.core.arguments import check_positive_number
from keras_bit.core.distribution import replicas
from keras_bit.core.saving import register
from keras_bit.layers.seeded import SeededLayer, generator_of, on_tensorflow


@register
class MixUp(SeededLayer):
    """Mixes every image and label of a batch with those of the reversed batch.

    One weight `w` is drawn for the whole batch from Beta(`alpha`, `alpha`); images, labels and
    sample weights all become `w * x + (1 - w) * reversed(x)`, as in the authors' input pipeline
    (`input_pipeline_tf2_or_jax.py`; MixUp: Zhang et al. 2017, arXiv 1710.09412).
    `keras.layers.MixUp` draws a weight for every image and a random partner instead.

    Use it in `Dataset.map` after `batch`, with any Keras backend, or inside a model. Drawing
    (`draw_weight`) and mixing (`mix`) are separate methods; `mix` is pure.

    Args:
        alpha: Positive float, both parameters of the Beta distribution. BiT-HyperRule takes 0.1
            for data sets of 20,000 images and more (paper, section 3.3).
        seed: Integer. The same seed gives the same sequence of weights in every run, and the
            sequence continues from epoch to epoch. In `Dataset.map` leave `num_parallel_calls` at
            its default: parallel calls draw the weights in no fixed order.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        images: Tensor (batch, height, width, channels), float or uint8; or a tuple
            `(images, labels)` or `(images, labels, sample_weight)`, or a dict with the keys
            `"images"`, `"labels"` and, if wanted, `"sample_weight"`. Tuples and dicts come back
            as such; separate arguments come back as a tuple. Of a dict with the keys `"images"`
            and `"weight"` (batch,), as `pipelines(..., mix_in_model=True)` gives it, the images
            come back, mixed under that weight, whatever `training` is.
        labels: One-hot or soft labels (batch, classes) of any dtype.
        sample_weight: Tensor (batch,) of weights, or `None`.
        training: Boolean; with `False` the input comes back unchanged.

    Mixing is done in float32; floats keep their dtype, integers become float32 (images in the
    value range they had).

    Raises:
        ValueError: If `alpha` is not positive, labels are class ids or missing, images are not
            batched, or the batch sizes differ; if a batch that comes with its weight is split over
            the replicas of a `tf.distribute` strategy, which would separate images that belong
            together.

    Example:

    >>> import numpy as np
    >>> import tensorflow as tf
    >>> images, labels = np.zeros((8, 32, 32, 3), "float32"), np.eye(8, dtype="float32")
    >>> dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    >>> dataset = dataset.map(keras_bit.MixUp(alpha=0.1, seed=0))
    """

    def __init__(self, alpha: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        # `mix` casts itself: float16 would be too coarse for images in [0, 255].
        kwargs.setdefault("autocast", False)
        super().__init__(seed, **kwargs)
        self.alpha = check_positive_number("alpha", alpha)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        _check_known_ranks((images, *args, *kwargs.values()))
        return super().__call__(images, *args, **kwargs)

    def call(
        self, images: Any, labels: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if isinstance(images, (dict, tuple, list)):
            _check_alone(images, labels, sample_weight)
        if _has_weight(images):
            _check_one_replica()
            return _mix_with_reversed(images["images"], images["weight"][:, None, None, None])
        if isinstance(images, dict):
            keys, parts = _split_dict(images)
            mixed = dict(zip(keys, self._mix_parts(parts, training), strict=True))
            return {**images, **mixed}
        parts = images if isinstance(images, (tuple, list)) else (images, labels, sample_weight)
        return self._mix_parts(tuple(part for part in parts if part is not None), training)

    def draw_weight(self, seed: Any = None) -> Any:
        """Draws one mixing weight.

        Args:
            seed: Integer tensor of shape (2,); the weight is then a pure function of it
                (a different one where XLA compiles TensorFlow's code, which changes the random
                numbers). With `None` it is the next of the layer's own sequence.

        Returns:
            A float32 scalar in [0, 1] from Beta(`alpha`, `alpha`).
        """
        seed = self.generator.next() if seed is None else seed
        if on_tensorflow(seed) or keras.backend.backend() == "tensorflow":
            return _tensorflow_beta(self.alpha, seed)
        if keras.backend.backend() == "torch":
            weight = generator_of(seed).beta(self.alpha, self.alpha)
            return ops.convert_to_tensor(weight, "float32")
        return _jax_beta(self.alpha, seed)

    def mix(
        self, images: Any, labels: Any, weight: Any, sample_weight: Any = None
    ) -> tuple[Any, ...]:
        """Mixes a batch with itself reversed, under a given weight; a pure function.

        Args:
            images: Tensor (batch, height, width, channels).
            labels: Tensor (batch, classes), one-hot or soft.
            weight: Float32 scalar in [0, 1], the share of the batch in its own order.
            sample_weight: Tensor (batch,), or `None`.

        Returns:
            The tuple `(images, labels)`, or `(images, labels, sample_weight)` where given.
        """
        parts = (images, labels) if sample_weight is None else (images, labels, sample_weight)
        return tuple(_mix_with_reversed(part, weight) for part in parts)

    def compute_output_shape(
        self, images_shape: Any, labels_shape: Any = None, sample_weight_shape: Any = None
    ) -> Any:
        if _has_weight(images_shape):
            return images_shape["images"]
        shapes = (images_shape, labels_shape, sample_weight_shape)
        return images_shape if labels_shape is None else tuple(s for s in shapes if s is not None)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha}

    def _mix_parts(self, parts, training):
        if not training:
            return parts
        _check_parts(parts)
        images, labels, *sample_weight = parts
        weight = self.draw_weight(self.next_tensorflow_seed(images))
        return self.mix(images, labels, weight, *sample_weight)


def _mix_with_reversed(x, weight):
    if on_tensorflow(x):
        import tensorflow as tf

        cast, flip, dtype = tf.cast, partial(tf.reverse, axis=[0]), x.dtype.name
    else:
        dtype = keras.backend.standardize_dtype(x.dtype)
        cast, flip = ops.cast, partial(ops.flip, axis=0)  # Keras 3.12 takes no list of axes
    exact = cast(x, "float32")
    mixed = weight * exact + (1.0 - weight) * flip(exact)
    return cast(mixed, dtype) if "float" in dtype else mixed


def _has_weight(data):
    return isinstance(data, dict) and set(data) == {"images", "weight"}


def _check_one_replica():
    if keras.backend.backend() != "tensorflow":
        return
    if (count := replicas()) > 1:
        raise ValueError(
            "A batch that comes with its `weight` must be mixed as a whole. Received: a strategy "
            f"of {count} replicas. Let `pipelines` mix: `mix_in_model=False`."
        )


def _tensorflow_beta(alpha, seed):
    import tensorflow as tf
    import tensorflow_probability as tfp

    # The quantile of a uniform number, for TFP's sampler chooses its code when a graph is
    # optimized: without that, it gives other numbers, or fails. `keras.random.beta` takes the
    # quotient of two gamma variates, which is 0 / 0 for small alphas.
    # Casting wraps 64-bit seeds around; stateless seeds have 32 bits.
    uniform = tf.random.stateless_uniform((), tf.cast(seed, "int32"))
    alpha = tf.constant(alpha, "float32")
    return tfp.math.betaincinv(alpha, alpha, uniform)


def _jax_beta(alpha, seed):
    import jax

    return jax.random.beta(ops.cast(seed, "uint32"), alpha, alpha, (), "float32")


def _check_known_ranks(data):
    """Raises before Keras does, whose message says nothing of it, or what is wrong goes unseen."""
    for x in keras.tree.flatten(data):
        if on_tensorflow(x) and x.shape.rank is None:
            raise ValueError(
                "Tensors must have a known number of dimensions. Received: "
                f"{x.name} of unknown shape, as `tf.py_function` and `tf.numpy_function` return "
                "it. Call `set_shape` on what they return, images and labels alike."
            )


def _check_alone(images, labels, sample_weight):
    if labels is not None or sample_weight is not None:
        raise ValueError(
            "`labels` and `sample_weight` must be in a dict or tuple that is given to MixUp, not "
            f"beside it. Received: a {type(images).__name__} of {len(images)} parts, and another "
            "argument. Where a model has several inputs, mix each with `MixUp.mix` and one weight."
        )


def _split_dict(data):
    keys = [key for key in ("images", "labels", "sample_weight") if data.get(key) is not None]
    if set(data) - {"sample_weight"} != set(keys) - {"sample_weight"} or "images" not in keys:
        raise ValueError(
            "A dict given to MixUp must hold `images`, `labels` and at most `sample_weight`. "
            f"Received: keys {sorted(data)}"
        )
    return keys, tuple(data[key] for key in keys)


def _check_parts(parts):
    if len(parts) not in (2, 3):
        raise ValueError(
            "`labels` must be given together with `images`, and at most `sample_weight`: all are "
            f"mixed. Received: {len(parts)} parts. Pass `(images, labels)`."
        )
    images, labels = parts[:2]
    if not hasattr(images, "shape"):
        raise ValueError(
            "`images` must be a tensor of shape (batch, height, width, channels). Received: a "
            f"{type(images).__name__}. Mix each of several inputs with `MixUp.mix` and one weight."
        )
    if _rank(images) != 4:
        raise ValueError(
            "`images` must be a batch of shape (batch, height, width, channels). "
            f"Received: images.shape={tuple(images.shape)}. Call MixUp after `batch`."
        )
    if not hasattr(labels, "shape"):
        raise ValueError(
            "`labels` must be a tensor of shape (batch, classes). "
            f"Received: a {type(labels).__name__}. Mix with one of several sets of labels, or use "
            "`MixUp.mix` on each with one weight."
        )
    if _rank(labels) != 2 or _is_column_of_ids(labels):
        dtype = keras.backend.standardize_dtype(labels.dtype)
        raise ValueError(
            "`labels` must be one-hot or soft, of shape (batch, classes): class ids cannot be "
            f"mixed. Received: labels.shape={tuple(labels.shape)}, dtype={dtype}. Use "
            "`keras.ops.one_hot`, or floats for labels 0 and 1 of a single output."
        )
    for name, part in zip(("labels", "sample_weight"), parts[1:], strict=False):
        _check_same_batch(images, part, name)


def _is_column_of_ids(labels):
    """Whether labels are integers (batch, 1), such as those of `keras.datasets.cifar10`."""
    dtype = keras.backend.standardize_dtype(labels.dtype)
    return _rank(labels) == 2 and labels.shape[-1] == 1 and "int" in dtype


def _check_same_batch(images, part, name):
    sizes = images.shape[0], part.shape[0]
    if None not in sizes and sizes[0] != sizes[1]:
        raise ValueError(
            f"`images` and `{name}` must have the same batch size. "
            f"Received: images.shape={tuple(images.shape)}, {name}.shape={tuple(part.shape)}"
        )
    if None in sizes and on_tensorflow(images):
        import tensorflow as tf

        message = f"`images` and `{name}` must have the same batch size."
        tf.debugging.assert_equal(tf.shape(images)[0], tf.shape(part)[0], message)


def _rank(x):
    return x.shape.rank if hasattr(x.shape, "rank") else len(x.shape)
