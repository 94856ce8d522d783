"""Which rows of every batch belong to this process."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_bit.core.arguments import check_integer
from keras_bit.core.distribution import processes, replicas
from keras_bit.hyperrule.rule import HyperRule


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of the `count` equal parts of each batch.

    Attributes:
        devices: Number of devices, of all parts together, that share a batch evenly.
    """

    index: int = 0
    count: int = 1
    devices: int = 1

    @classmethod
    def of(cls, rule: HyperRule, shard: Any = None) -> "Shard":
        """Returns the shard `(index, count)`, by default that of Keras's distribution.

        Raises:
            ValueError: If it is no such pair, if Keras would shard the batches again, or if the
                rule's micro-batches cannot be shared evenly.
        """
        index, count = _shard_of_engine() if shard is None else _checked(shard)
        # A strategy of TensorFlow takes batches of any size apart.
        devices = math.lcm(count, replicas() if keras.backend.backend() == "jax" else 1)
        if rule.micro_batch_size % devices:
            raise ValueError(
                "`batch_size` of the rule, and its `micro_batch_size`, must be a multiple of the "
                f"{devices} devices that share a batch. Received: batch_size={rule.batch_size}, "
                f"micro_batch_size={rule.micro_batch_size}"
            )
        return cls(index, count, devices)

    def test_positions(self, count: int, batch_size: int) -> tuple[np.ndarray, ...]:
        """Returns the positions, of `count` images, of this shard's rows of the test batches.

        Batches of `batch_size` images are shared evenly; what is missing from the last one is
        filled up, and then a second array holds the weight of each row: 0 for what was filled in.
        That of the others makes their sum the number of all rows, by which Keras divides.
        """
        padded = -(-count // self.devices) * self.devices
        batches = np.split(np.arange(padded), range(batch_size, padded, batch_size))
        own = np.concatenate([np.split(batch, self.count)[self.index] for batch in batches])
        if padded == count:
            return (own,)
        weights = np.where(own < count, padded / count, 0).astype(np.float32)
        return np.minimum(own, count - 1), weights


def _shard_of_engine():
    distribution = keras.distribution.distribution()
    count = processes().count
    if count == 1:
        return 0, 1
    if distribution is None or distribution.auto_shard_dataset:
        raise ValueError(
            "`keras.distribution` must share the devices of all processes, and leave the sharding "
            f"of the data to `pipelines`. Received: {count} processes with {distribution}. Call "
            "`keras.distribution.set_distribution(keras.distribution.DataParallel("
            "auto_shard_dataset=False))` first."
        )
    parts = min(count, replicas())
    return processes().index // (count // parts), parts


def _checked(shard):
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise ValueError(f"`shard` must be a pair (index, count). Received: shard={shard!r}")
    index, count = (check_integer("shard", number, 0) for number in shard)
    if index >= count:
        raise ValueError(
            "`shard` must be a pair (index, count) with an index from 0 to count - 1. "
            f"Received: shard={shard!r}"
        )
    return index, count
