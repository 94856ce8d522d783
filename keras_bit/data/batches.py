"""What the batches of `pipelines` hold, whichever library makes them."""

import dataclasses
import functools

import numpy as np

from keras_bit.core.device import usable_cores
from keras_bit.data.cache import cache_size
from keras_bit.data.shard import Shard
from keras_bit.hyperrule.rule import HyperRule

BYTES_AHEAD = 2**28  # of batches in preparation; one of them alone keeps several cores busy


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """The arguments of `pipelines`, checked, and what follows from them for every batch."""

    num_classes: int
    rule: HyperRule
    dtype: str
    mix_in_model: bool
    seed: int
    initial_step: int
    shard: Shard
    class_weights: tuple[float, ...] | None

    @property
    def size(self) -> int:
        """Number of images of a batch in this process."""
        return self.rule.micro_batch_size // self.shard.count

    @functools.cached_property
    def indices(self) -> np.ndarray:
        """Indices in the whole batch of what each micro-batch needs, a row for each micro-batch.

        With MixUp these are its own images, then their partners from the other end of the batch, in
        the order in which mixing all of them with their reverse gives the micro-batch as first
        half.
        """
        batch_size = self.rule.batch_size
        parts = np.arange(batch_size).reshape(-1, self.shard.count, self.size)
        own = parts[:, self.shard.index]
        if not self.rule.mixup_alpha or self.size == batch_size:
            return own
        return np.concatenate([own, batch_size - 1 - own[:, ::-1]], axis=1)

    def ahead(self, edge: int) -> int:
        """Number of batches of images of this edge to make at a time: as many as memory allows."""
        size = cache_size(self.size, edge) * np.dtype(self.dtype).itemsize
        return max(1, min(usable_cores(), BYTES_AHEAD // size))
