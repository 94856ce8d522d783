"""Order and augmentation of training: drawn as pure functions of (seed, step), then applied.

All of it is TensorFlow ops, so that no thread of `tf.data` needs the Python interpreter: neither
does it slow the training loop down, nor hang when the program ends in the midst of training.
"""

from typing import NamedTuple

import numpy as np

from keras_bit.checks import check_integer


def check_seed(seed):
    """Returns `seed` as an int; raises where it is not a non-negative integer."""
    return check_integer("seed", seed, minimum=0)


class Windows(NamedTuple):
    """Where the images of a batch are cropped, and whether flipped: tensors `(batch,)`.

    Attributes:
        tops: int64, first row of each window.
        lefts: int64, first column of each window.
        flips: Booleans, whether a window is mirrored left to right.
    """

    tops: object
    lefts: object
    flips: object

    def take(self, places):
        """The windows of some of the images, chosen by an integer tensor."""
        import tensorflow as tf

        return Windows(*(tf.gather(values, places) for values in self))


class Sampler:
    """Draws all random numbers of training, each a pure function of the seed and a number.

    The images form an endless stream, epoch after epoch, each a new permutation of all of them.
    Step `s` takes the `rule.batch_size` images of the stream from `s * rule.batch_size` on.

    Random numbers come from TensorFlow's stateless Philox generator, under a key for each purpose.

    Args:
        count: Number of training images.
        rule: `HyperRule`.
        seed: Non-negative integer.

    Example:

    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=1000, batch_size=4)
    >>> sampler = Sampler(1000, rule, seed=0)
    >>> sampler.order(epoch=3).shape, sampler.windows(step=7).tops.shape
    (TensorShape([1000]), TensorShape([4]))
    """

    def __init__(self, count, rule, seed=0):
        keys = np.random.SeedSequence(check_seed(seed)).generate_state(3, np.uint64)
        self.order_key, self.window_key, self.weight_key = keys.view(np.int64).tolist()
        self.count = count
        self.batch_size = rule.batch_size
        self.offsets = rule.resize_edge - rule.crop_size + 1
        self.flip_probability = 0.5 if rule.random_flip else 0.0

    def order(self, epoch):
        """The permutation of `range(count)` of an epoch, int64 `(count,)`."""
        import tensorflow as tf

        keys = self._uniform(self.order_key, epoch, (self.count,), tf.int64)
        return tf.cast(tf.argsort(keys, stable=True), tf.int64)

    def positions(self, step):
        """An endless `tf.data.Dataset` of the images of each step from `step` on.

        Elements are int64 `(batch_size,)` in `[0, count)`.
        """
        import tensorflow as tf

        first, done = divmod(step * self.batch_size, self.count)

        @tf.autograph.experimental.do_not_convert  # converting takes longer than the tracing itself
        def shuffled(epoch):
            start = tf.where(epoch == first, done, 0)  # `skip` would walk over a million elements
            return tf.data.Dataset.from_tensor_slices(self.order(epoch)[start:])

        stream = tf.data.Dataset.counter(first).flat_map(shuffled)
        return stream.batch(self.batch_size, drop_remainder=True)

    def windows(self, step):
        """The `Windows` of a step's images."""
        import tensorflow as tf

        numbers = self._uniform(self.window_key, step, (3, self.batch_size), tf.float32)
        tops, lefts = tf.unstack(tf.cast(numbers[:2] * self.offsets, tf.int64))
        return Windows(tops, lefts, numbers[2] < self.flip_probability)

    def weight_seed(self, step):
        """The seed of a step's MixUp weight, int32 `(2,)`."""
        import tensorflow as tf

        return self._uniform(self.weight_key, step, (2,), tf.int32)

    def _uniform(self, key, number, shape, dtype):
        """Floats in [0, 1), or integers over the whole range of `dtype`."""
        import tensorflow as tf

        bounds = {} if dtype.is_floating else {"minval": None, "maxval": None}
        seed = tf.stack([tf.constant(key, tf.int64), tf.cast(number, tf.int64)])
        return tf.random.stateless_uniform(shape, seed, dtype=dtype, alg="philox", **bounds)


def crop_batch(images, rows, windows, size):
    """Cuts one window out of each chosen image.

    Args:
        images: uint8 tensor `(n, height, width, 3)`.
        rows: int64 `(batch,)`, the chosen images.
        windows: `Windows` of the same length.
        size: Height and width of the windows in pixels.

    Returns:
        uint8 tensor `(batch, size, size, 3)`.
    """
    import tensorflow as tf

    def crop(sample):
        row, top, left, flip = sample
        window = tf.slice(images, tf.stack([row, top, left, 0]), [1, size, size, 3])[0]
        return tf.cond(flip, lambda: tf.reverse(window, [1]), lambda: window)

    signature = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(crop, (rows, *windows), fn_output_signature=signature)
