"""Order and augmentation of training: drawn as pure functions of (seed, step), then applied.

All of it is TensorFlow ops, so that no thread of `tf.data` needs the Python interpreter: it
neither slows the training loop down, nor hangs when the program ends during training.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_bit.core.arguments import check_integer
from keras_bit.hyperrule.rule import HyperRule


class Crops(NamedTuple):
    """Where the images of a batch are cropped, and whether flipped: tensors `(batch,)`."""

    tops: Any  # int64, first rows
    lefts: Any  # int64, first columns
    flips: Any  # booleans, whether mirrored left to right

    def take(self, indices: Any) -> "Crops":
        """The crops of some of the images, chosen by an integer tensor."""
        return Crops(*(tf.gather(values, indices) for values in self))


class Sampler:
    """Draws all random numbers of training, each a pure function of the seed and a number.

    The `count` images form an endless stream, epoch after epoch, each a new permutation of them.
    Step `s` takes the `rule.batch_size` images of the stream from `s * rule.batch_size` on. Numbers
    come from TensorFlow's stateless Philox generator, under a key for each purpose.

    Example:

    >>> from keras_bit.data.sampler import Sampler
    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=1000, batch_size=4)
    >>> sampler = Sampler(1000, rule, seed=0)
    >>> sampler.order(epoch=3).shape, sampler.crops(step=7).tops.shape
    (TensorShape([1000]), TensorShape([4]))
    """

    def __init__(self, count: int, rule: HyperRule, seed: int = 0):
        seeds = np.random.SeedSequence(check_integer("seed", seed, 0))
        keys = seeds.generate_state(3, np.uint64).view(np.int64)
        self.order_key, self.crop_key, self.weight_key = keys.tolist()
        self.count = count
        self.batch_size = rule.batch_size
        self.offsets = rule.resize_edge - rule.crop_size + 1
        self.flip_probability = 0.5 if rule.random_flip else 0.0

    def order(self, epoch: Any) -> Any:
        """The permutation of `range(count)` of an epoch, int64 `(count,)`."""
        keys = self._uniform(self.order_key, epoch, (self.count,), tf.int64)
        return tf.cast(tf.argsort(keys, stable=True), tf.int64)

    def positions(self, step: int) -> tf.data.Dataset:
        """The images of each step from `step` on, endless: int64 `(batch_size,)` below `count`."""
        first, done = divmod(step * self.batch_size, self.count)

        @tf.autograph.experimental.do_not_convert  # converting takes longer than the tracing itself
        def shuffled(epoch):
            start = tf.where(epoch == first, done, 0)  # `skip` would walk over a million elements
            return tf.data.Dataset.from_tensor_slices(self.order(epoch)[start:])

        stream = tf.data.Dataset.counter(first).flat_map(shuffled)
        return stream.batch(self.batch_size, drop_remainder=True)

    def crops(self, step: Any) -> Crops:
        """The `Crops` of a step's images."""
        numbers = self._uniform(self.crop_key, step, (3, self.batch_size), tf.float32)
        tops, lefts = tf.unstack(tf.cast(numbers[:2] * self.offsets, tf.int64))
        return Crops(tops, lefts, numbers[2] < self.flip_probability)

    def weight_seed(self, step: Any) -> Any:
        """The seed of a step's MixUp weight, int32 `(2,)`."""
        return self._uniform(self.weight_key, step, (2,), tf.int32)

    def _uniform(self, key, number, shape, dtype):
        """Floats in [0, 1), or integers over the whole range of `dtype`."""
        bounds = {} if dtype.is_floating else {"minval": None, "maxval": None}
        seed = tf.stack([tf.constant(key, tf.int64), tf.cast(number, tf.int64)])
        return tf.random.stateless_uniform(shape, seed, dtype=dtype, alg="philox", **bounds)


def crop_batch(images: Any, rows: Any, crops: Crops, size: int) -> Any:
    """Cuts crops `(batch, size, size, 3)` out of the images `rows`, int64 `(batch,)`; all uint8."""

    def crop_one(sample):
        row, top, left, flip = sample
        crop = tf.slice(images, tf.stack([row, top, left, 0]), [1, size, size, 3])[0]
        return tf.cond(flip, lambda: tf.reverse(crop, [1]), lambda: crop)

    signature = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(crop_one, (rows, *crops), fn_output_signature=signature)
