"""What the last bits of a run depend on, beside its settings."""

import importlib
import os
import platform

import keras
import numpy as np

from keras_bit.core.device import current_device
from keras_bit.core.distribution import replicas
from keras_bit.core.onednn import CPUINFO, VARIABLE

_PROCESSOR_FACTS = ("model name", "cpu family", "model", "stepping")


def environment() -> dict[str, str]:
    """Returns versions, devices and processor, and whether oneDNN was switched on or off."""
    backend = keras.backend.backend()
    return {
        "keras": keras.version(),
        "backend": f"{backend} {importlib.import_module(backend).__version__}",
        "device": current_device().name,
        "devices": str(replicas()),
        "processor": _processor(),
        VARIABLE: os.environ.get(VARIABLE, "not set"),
    }


def random_state() -> dict[str, np.ndarray]:
    """Returns the state of PyTorch's own generators, as `random/index`; `{}` on other backends.

    There layers that were given no seed, such as `keras.layers.Dropout`, draw from them.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return {f"random/{i}": state.numpy().copy() for i, state in enumerate(states)}


def restore_random_state(states: list[np.ndarray]) -> None:
    """Gives PyTorch's generators the state that `random_state` returned, and empties the list."""
    if states and keras.backend.backend() == "torch":
        import torch

        cpu, *gpus = (torch.tensor(state) for state in states)
        torch.set_rng_state(cpu)
        for i, state in enumerate(gpus[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, i)
    states.clear()


def _processor():
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    known = [facts[name] for name in _PROCESSOR_FACTS if name in facts]
    return " ".join(known) or platform.processor()
