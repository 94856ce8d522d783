"""How Keras shares out the work: devices that take a part of each batch, in one or more processes.

Several processes are those of `jax.distributed`. With TensorFlow there is one, for Keras's `fit`
fails under its MultiWorkerMirroredStrategy. With PyTorch there is one device, for Keras's `fit`
shares no batch there.
"""

import dataclasses
from typing import Any

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Processes:
    """Which process this is, and of how many; the first, of index 0, writes the files."""

    index: int
    count: int


def processes() -> Processes:
    """Returns the `Processes` of this program."""
    if keras.backend.backend() != "jax":
        return Processes(0, 1)
    import jax

    return Processes(jax.process_index(), jax.process_count())


def replicas() -> int:
    """Returns of how many devices, in all processes, each takes a part of every batch."""
    if keras.backend.backend() == "jax":
        distribution = keras.distribution.distribution()
        if distribution is None:
            return 1
        mesh = distribution.device_mesh  # `num_model_replicas` is new in Keras 3.15
        return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def wait_for_all(name: str) -> None:
    """Returns when every process has come to the place of this name."""
    if processes().count > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def gather(value: Any) -> np.ndarray:
    """Returns the numbers of all processes, `value` in each of them, as one array."""
    if processes().count == 1:
        return np.asarray([value])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value)))
