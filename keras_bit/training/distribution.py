"""Training on all devices of a machine, and on several machines."""

import contextlib
import inspect
import os
from collections.abc import Iterator
from typing import Any

import keras

from keras_bit.core.device import device_names, runs_on_cpu, set_memory_growth
from keras_bit.core.distribution import processes
from keras_bit.core.warn import warn_caller

_PATIENCE = ("heartbeat_timeout_seconds", "shutdown_timeout_seconds")  # of JAX since 0.7 and 0.8.1
HEARTBEAT_SECONDS = 30  # without a sign of life from one process, after which the others end
# What Keras reads: the address of the first process, the number of all, and that of this one.
_OF_KERAS = tuple(
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
# And what Slurm sets within `srun`, and Open MPI within `mpirun`.
_COUNTS = (_OF_KERAS[1], "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")

# In the messages of JAX's ways to reach the other processes.
_LOST = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "oordination service")


def join_processes() -> None:
    """Joins the processes that were started to train together, where environment variables say so.

    They are those of `keras.distribution.initialize`, or of Slurm or Open MPI, which JAX reads.

    Raises:
        ValueError: If there are several processes and Keras's backend is not JAX, or a variable of
            Keras is missing or no number.
    """
    names = [*_COUNTS, "WORLD_SIZE"] if keras.backend.backend() == "torch" else _COUNTS  # torchrun
    several = [f"{n}={os.environ[n]}" for n in names if os.environ.get(n, "1") != "1"]
    several += ["TF_CONFIG"] * ("TF_CONFIG" in os.environ)
    of_keras = [name for name in _OF_KERAS if name in os.environ]
    if not several and _COUNTS[0] not in of_keras:  # which is an error, not a run for itself
        several = [f"{name}={os.environ[name]} without {_COUNTS[0]}" for name in of_keras]
    if not several:
        return
    if keras.backend.backend() != "jax":
        raise _needs_jax(f"{several[0]} with the backend {keras.backend.backend()}")
    import jax

    given: dict[str, Any] = _given_to_keras() if of_keras else {}
    known = inspect.signature(jax.distributed.initialize).parameters
    given |= {name: HEARTBEAT_SECONDS for name in _PATIENCE if name in known}
    jax.distributed.initialize(**given)


def _needs_jax(received):
    return ValueError(
        "Several processes train together with Keras on JAX only: Keras's `fit` fails under "
        "TensorFlow's MultiWorkerMirroredStrategy, and shares no gradients on PyTorch. "
        f"Received: {received}. Set KERAS_BACKEND=jax."
    )


def _given_to_keras():
    """What `keras.distribution.initialize`, which sets no heartbeat, would read and hand on."""
    addresses, count, index = (os.environ.get(name, "") for name in _OF_KERAS)
    if not addresses or not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise ValueError(
            f"{', '.join(_OF_KERAS)} must be the address of the first process with a port, the "
            "number of processes, and the number of this one from 0 on. "
            f"Received: {addresses!r}, {count!r}, {index!r}"
        )
    first, *_ = addresses.split(",")
    return {"coordinator_address": first, "num_processes": int(count), "process_id": int(index)}


@contextlib.contextmanager
def all_devices() -> Iterator[None]:
    """Shares batches among all devices that the backend sees, unless the caller has chosen some."""
    check_strategy()
    set_memory_growth()  # first: TensorFlow initializes the GPUs when it lists them
    with _scope_of_all_devices():
        yield


def check_strategy() -> None:
    """Raises where several processes share batches in a way in which Keras's `fit` fails."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            raise _needs_jax("such a strategy")
    elif keras.backend.backend() == "torch":
        _check_one_of_torch()


def _scope_of_all_devices():
    if keras.backend.backend() == "jax":
        devices = keras.distribution.list_devices()
        if len(devices) > 1 and keras.distribution.distribution() is None:
            data_parallel = keras.distribution.DataParallel(
                devices=devices, auto_shard_dataset=False
            )
            return data_parallel.scope()
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
        if len(gpus) > 1 and not tf.distribute.has_strategy():
            return tf.distribute.MirroredStrategy(gpus).scope()
    return contextlib.nullcontext()


def _check_one_of_torch():
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if (count := torch.distributed.get_world_size()) > 1:
            raise _needs_jax(f"a process group of {count}")
    if (count := torch.cuda.device_count()) > 1 and not runs_on_cpu():
        warn_caller(
            f"Keras on PyTorch trains on one device, {device_names()[0]}, of the {count} here. To "
            "share batches among all set KERAS_BACKEND to jax or tensorflow; to choose one, set "
            "CUDA_VISIBLE_DEVICES."
        )


@contextlib.contextmanager
def this_process() -> Iterator[None]:
    """Leaves the distribution of JAX: a variable made in it is made by all processes together."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Says it in plain words where a step fails since another process has ended."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if processes().count == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        raise ConnectionError(
            "Training has ended since another process failed or cannot be reached; its own output "
            "says why. Start all processes again: they resume from the newest checkpoint. "
            f"(process {processes().index} of {processes().count}: {str(error).splitlines()[0]})"
        ) from error


class OnEveryDevice(keras.layers.Layer):
    """Hands its input on so that every process of `keras.distribution` holds the whole of it."""

    def call(self, inputs: Any) -> Any:
        distribution = keras.distribution.distribution()
        if distribution is None:
            return inputs
        axes = (None,) * len(inputs.shape)
        layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)
        return keras.distribution.distribute_tensor(inputs, layout)


def with_whole_outputs(model: keras.Sequential) -> keras.Sequential:
    """Returns a model of the same layers whose predictions every process can read."""
    if processes().count == 1:
        return model
    return keras.Sequential([*model.layers, OnEveryDevice(dtype="float32")])
