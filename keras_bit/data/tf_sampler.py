"""What the sampler draws, as TensorFlow ops, and crops.

No thread of `tf.data` needs the Python interpreter for them: they neither slow the training loop
down, nor hang when the program ends during training.
"""

from typing import Any

import tensorflow as tf

from keras_bit.data.sampler import WEIGHT_STEPS, Crops, Sampler, weight_thresholds


class TensorFlowSampler(Sampler):
    """A `Sampler` whose numbers, and those that they are functions of, are tensors.

    Example:

    >>> from keras_bit.data.tf_sampler import TensorFlowSampler
    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=1000, batch_size=4)
    >>> sampler = TensorFlowSampler(1000, rule, seed=0)
    >>> sampler.order(epoch=3).shape, sampler.crops(step=7).tops.shape
    (TensorShape([1000]), TensorShape([4]))
    """

    def order(self, epoch: Any) -> Any:
        keys = self._uniform(self.order_key, epoch, (self.count,), tf.int64)
        return tf.cast(tf.argsort(keys, stable=True), tf.int64)

    def stream(self, step: int) -> tf.data.Dataset:
        """`positions` of each step from `step` on, endless."""
        first, done = divmod(step * self.batch_size, self.count)

        @tf.autograph.experimental.do_not_convert  # converting takes longer than the tracing itself
        def shuffled(epoch):
            start = tf.where(epoch == first, done, 0)  # `skip` would walk over a million elements
            return tf.data.Dataset.from_tensor_slices(self.order(epoch)[start:])

        stream = tf.data.Dataset.counter(first).flat_map(shuffled)
        return stream.batch(self.batch_size, drop_remainder=True)

    def crops(self, step: Any) -> Crops:
        numbers = self._uniform(self.crop_key, step, (3, self.batch_size), tf.float32)
        tops, lefts = tf.unstack(tf.cast(numbers[:2] * self.offsets, tf.int64))
        return Crops(tops, lefts, numbers[2] < self.flip_probability)

    def weight(self, step: Any) -> Any:
        seed = self._uniform(self.weight_key, step, (2,), tf.int32)
        uniform = tf.random.stateless_uniform((1,), seed, dtype=tf.float32, alg="philox")
        thresholds = tf.constant(weight_thresholds(self.mixup_alpha))
        steps = tf.searchsorted(thresholds, tf.cast(uniform, tf.float64), side="right")[0]
        return tf.cast(steps, tf.float32) * (1 / WEIGHT_STEPS)

    def _uniform(self, key, number, shape, dtype):
        """Floats in [0, 1), or integers over the whole range of `dtype`."""
        bounds = {} if dtype.is_floating else {"minval": None, "maxval": None}
        seed = tf.stack([tf.constant(key, tf.int64), tf.cast(number, tf.int64)])
        return tf.random.stateless_uniform(shape, seed, dtype=dtype, alg="philox", **bounds)


def crop_batch(images: Any, rows: Any, crops: Crops, size: int) -> Any:
    """`sampler.crop_batch` of tensors."""

    def crop_one(sample):
        row, top, left, flip = sample
        crop = tf.slice(images, tf.stack([row, top, left, 0]), [1, size, size, 3])[0]
        return tf.cond(flip, lambda: tf.reverse(crop, [1]), lambda: crop)

    signature = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(crop_one, (rows, *crops), fn_output_signature=signature)
