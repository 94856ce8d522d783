"""What the device that Keras computes on is, how much memory it has, and how it says "too much"."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import keras
from keras import DTypePolicy

_OUT_OF_MEMORY = (
    "OOM when allocating",
    "RESOURCE_EXHAUSTED",
    "out of memory",
    "Out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
)
_AMPERE = 8.0  # compute capability of NVIDIA's first GPUs with bfloat16 in their matrix units
# Where Linux tells a container's limit, use and inactive files, in the versions 2 and 1 of cgroups.
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


@dataclasses.dataclass(frozen=True)
class Device:
    """The first device that Keras computes on.

    Attributes:
        kind: `"cpu"`, `"gpu"` or `"tpu"`.
        name: What its maker calls it.
        memory: Bytes that it has for Keras, or `None` where the backend does not tell: TensorFlow
            tells of a CPU alone, and of a GPU with a limit; PyTorch of a CPU and of CUDA's GPUs.
        has_bfloat16: Whether bfloat16 is quicker there than float32.
    """

    kind: str
    name: str
    memory: int | None
    has_bfloat16: bool


def current_device() -> Device:
    """Returns the `Device` that Keras computes on."""
    find = {"jax": _jax_device, "tensorflow": _tensorflow_device, "torch": _torch_device}
    found = find.get(keras.backend.backend(), lambda: None)()
    return found or Device("cpu", "CPU", available_memory(), False)


def _jax_device() -> Device | None:
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    memory = (device.memory_stats() or {}).get("bytes_limit")
    capability = str(getattr(device, "compute_capability", _AMPERE))
    is_number = capability.replace(".", "", 1).isdecimal()  # AMD's are names, such as "gfx942"
    has_bfloat16 = is_number and float(capability) >= _AMPERE
    return Device(device.platform, device.device_kind, memory, has_bfloat16)


def _tensorflow_device() -> Device | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    limits = [
        part.memory_limit for part in tf.config.get_logical_device_configuration(gpus[0]) or ()
    ]
    memory = limits[0] * 2**20 if limits and limits[0] else None
    capability = float("{}.{}".format(*details.get("compute_capability", (0, 0))))
    return Device("gpu", details.get("device_name", "GPU"), memory, capability >= _AMPERE)


def _torch_device() -> Device | None:
    import torch

    device = _torch_placement()
    if device.type != "cuda":
        return None if device.type == "cpu" else Device("gpu", device.type, None, False)
    found = torch.cuda.get_device_properties(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    capability = float(f"{found.major}.{found.minor}")
    return Device("gpu", found.name, int(share * found.total_memory), capability >= _AMPERE)


def _torch_placement() -> Any:
    """The `torch.device` on which Keras makes its tensors."""
    return keras.ops.zeros(()).device


def device_names() -> list[str]:
    """Returns the names of the devices that Keras computes on, such as `"cpu:0"`.

    They are those of `keras.distribution.list_devices`, which PyTorch lacks. There it is one.
    """
    if keras.backend.backend() != "torch":
        return keras.distribution.list_devices()
    device = _torch_placement()
    return [f"{device.type}:{device.index or 0}"]


def runs_on_cpu() -> bool:
    """Whether every device that Keras computes on is a CPU."""
    return all(device.startswith("cpu") for device in device_names())


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


def set_memory_growth() -> None:
    """Lets TensorFlow take GPU memory with need instead of all at once; harmless without a GPU.

    GPUs that are in use already, or that were given a limit, stay as they are. PyTorch takes it
    with need by itself.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


def available_memory() -> int | None:
    """Bytes of the machine that can still be used, or `None` where the system does not tell."""
    found = []
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        sizes = dict(line.split(":") for line in lines)
        found.append(int(sizes["MemAvailable"].split()[0]) * 1024)
    for folder, *names in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" where a container has no limit
            found.append(_left_in_cgroup(pathlib.Path(folder), *names))
    return min(found, default=None)


def _left_in_cgroup(folder, limit_file, usage_file, inactive):
    """Bytes below the limit of a container; the pages of files that it gives back count as left."""
    limit, usage = (int((folder / name).read_text()) for name in (limit_file, usage_file))
    lines = (folder / "memory.stat").read_text().splitlines()
    reclaimable = dict(line.split() for line in lines).get(inactive, 0)
    return max(limit - usage + int(reclaimable), 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, of any backend, says that the device has no memory left."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, (RuntimeError, *_tensorflow_errors())):
        return False
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _tensorflow_errors() -> tuple[type[BaseException], ...]:
    """TensorFlow's errors, which are no RuntimeErrors; JAX's and PyTorch's are."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()


def resolve_policy(dtype: str | DTypePolicy | None) -> str:
    """Returns the name of the precision policy that a run with the argument `dtype` has.

    With `None` it is Keras's own policy where that is not `"float32"`; and else
    `"mixed_bfloat16"` on a device that is quicker with it, `"float32"` on every other.
    """
    if dtype is not None:
        try:
            return keras.dtype_policies.get(dtype).name
        except (ValueError, TypeError) as error:
            raise ValueError(
                '`dtype` must be a precision policy of Keras, such as "float32" or '
                f'"mixed_bfloat16". Received: dtype={dtype!r}'
            ) from error
    policy = keras.config.dtype_policy().name
    if policy == "float32" and current_device().has_bfloat16:
        return "mixed_bfloat16"
    return policy


@contextlib.contextmanager
def policy_scope(policy: str | DTypePolicy) -> Iterator[None]:
    """Keras makes layers of this policy inside; afterward its own is what it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
