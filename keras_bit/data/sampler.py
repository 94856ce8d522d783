"""Order and augmentation of training: drawn as pure functions of (seed, step), then applied."""

import functools
import threading
from typing import Any, NamedTuple

import numpy as np

from keras_bit.core.arguments import check_integer
from keras_bit.data.philox import floats, integers, random_words
from keras_bit.hyperrule.rule import HyperRule

# MixUp weights are multiples of 1 / WEIGHT_STEPS. The product of such a weight and a byte, and the
# sum of two such products, fit into the 24 bits of a float32: mixing bytes rounds nothing, so that
# it gives the same on every processor and in every library.
WEIGHT_STEPS = 2**16


class Crops(NamedTuple):
    """Where the images of a batch are cropped, and whether flipped: arrays `(batch,)`."""

    tops: Any  # int64, first rows
    lefts: Any  # int64, first columns
    flips: Any  # booleans, whether mirrored left to right

    def take(self, indices: np.ndarray) -> "Crops":
        """The crops of some of the images."""
        return Crops(*(values[indices] for values in self))


class Sampler:
    """Draws all random numbers of training, each a pure function of the seed and a number.

    The `count` images form an endless stream, epoch after epoch, each a new permutation of them.
    Step `s` takes the `rule.batch_size` images of the stream from `s * rule.batch_size` on. Numbers
    come from TensorFlow's stateless Philox generator, under a key for each purpose; here they are
    NumPy arrays, in `TensorFlowSampler` the same as tensors.

    Example:

    >>> from keras_bit.data.sampler import Sampler
    >>> rule = keras_bit.HyperRule(image_size=32, dataset_size=1000, batch_size=4, mixup_alpha=0.1)
    >>> sampler = Sampler(1000, rule, seed=0)
    >>> sampler.positions(step=7), sampler.crops(step=7).tops
    (array([841, 131, 509,  76]), array([ 6, 28, 19, 28]))
    """

    def __init__(self, count: int, rule: HyperRule, seed: int = 0):
        seeds = np.random.SeedSequence(check_integer("seed", seed, 0))
        keys = seeds.generate_state(3, np.uint64).view(np.int64)
        self.order_key, self.crop_key, self.weight_key = keys.tolist()
        self.count = count
        self.batch_size = rule.batch_size
        self.offsets = rule.resize_edge - rule.crop_size + 1
        self.flip_probability = 0.5 if rule.random_flip else 0.0
        self.mixup_alpha = rule.mixup_alpha
        self._orders: dict[int, np.ndarray] = {}  # of the last two epochs
        self._ordering = threading.Lock()  # one thread sorts, the others wait for it

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of `range(count)` of an epoch, int64 `(count,)`."""
        with self._ordering:
            if epoch not in self._orders:
                keys = integers(random_words((self.order_key, epoch), 2 * self.count))
                self._orders[epoch] = np.argsort(keys, kind="stable")
                for earlier in list(self._orders)[:-2]:
                    del self._orders[earlier]
            return self._orders[epoch]

    def positions(self, step: int) -> np.ndarray:
        """The images of a step, int64 `(batch_size,)`, each below `count`."""
        stream = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, ranks = np.divmod(stream, self.count)
        parts = [self.order(epoch)[ranks[epochs == epoch]] for epoch in np.unique(epochs).tolist()]
        return np.concatenate(parts)

    def crops(self, step: int) -> Crops:
        """The `Crops` of a step's images."""
        numbers = floats(random_words((self.crop_key, step), 3 * self.batch_size)).reshape(3, -1)
        tops, lefts = (numbers[:2] * np.float32(self.offsets)).astype(np.int64)
        return Crops(tops, lefts, numbers[2] < self.flip_probability)

    def weight(self, step: int) -> np.float32:
        """The MixUp weight of a step, from Beta(`mixup_alpha`, `mixup_alpha`), in [0, 1].

        It is the quantile of a uniform number, rounded to a multiple of 1 / `WEIGHT_STEPS`.
        """
        seed = random_words((self.weight_key, step), 2).view(np.int32).tolist()
        (uniform,) = floats(random_words(tuple(seed), 1))
        thresholds = weight_thresholds(self.mixup_alpha)
        return np.float32(np.searchsorted(thresholds, uniform, "right") / WEIGHT_STEPS)


@functools.lru_cache(maxsize=4)
def weight_thresholds(alpha: float) -> np.ndarray:
    """Of Beta(`alpha`, `alpha`), the probabilities of less than 1/2, 3/2, 5/2... steps of a weight.

    A uniform number of which `i` are not larger becomes the weight `i / WEIGHT_STEPS`.
    """
    from scipy.special import betainc

    return betainc(alpha, alpha, (np.arange(WEIGHT_STEPS) + 0.5) / WEIGHT_STEPS)


def crop_batch(images: np.ndarray, rows: np.ndarray, crops: Crops, size: int) -> np.ndarray:
    """Cuts crops `(batch, size, size, 3)` out of the images `rows`, int64 `(batch,)`; all uint8."""
    cropped = np.empty((len(rows), size, size, 3), np.uint8)
    for row, top, left, flip, target in zip(rows, *crops, cropped, strict=True):
        crop = images[row, top : top + size, left : left + size]
        target[...] = crop[:, ::-1] if flip else crop
    return cropped
