"""What the last bits of a run depend on, beside its settings."""

import importlib
import os
import platform

import keras

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


def _processor():
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    known = [facts[name] for name in _PROCESSOR_FACTS if name in facts]
    return " ".join(known) or platform.processor()
