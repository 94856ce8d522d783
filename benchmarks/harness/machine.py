"""What figures were measured on: `python -m benchmarks.harness.machine` prints it as JSON.

Which device Keras has is found in a process of its own, for whoever asks may reserve its memory.
"""

import json
import pathlib
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("keras", "tensorflow", "jax", "torch", "timm", "numpy", "pillow")
CPUINFO = pathlib.Path("/proc/cpuinfo")
INSTRUCTIONS = {"AMX": "amx_tile", "AVX-512": "avx512f", "AVX2": "avx2"}


def versions():
    """Returns a dict from the packages that figures depend on to their versions, or `None`."""
    return {package: _version(package) for package in PACKAGES}


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor(cpuinfo=CPUINFO):
    """Returns the processor's name, and on Linux its family, model and instruction sets.

    Virtual machines often give it a name that says little.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    flags = fields.get("flags", "").split()
    details = [f"{name} {fields[key]}" for name, key in _FAMILY.items() if key in fields]
    details += [name for name, flag in INSTRUCTIONS.items() if flag in flags]
    name = fields.get("model name", platform.machine())
    return f"{name} ({', '.join(details)})" if details else name


_FAMILY = {"family": "cpu family", "model": "model"}


def find_machine():
    """Returns a dict of JSON's types: processor, cores, device, its kind, backend and versions."""
    import keras

    from keras_bit.core.device import current_device, usable_cores

    device = current_device()
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "kind": device.kind,
        "device": device.name,
        "memory": device.memory,
        "backend": keras.backend.backend(),
        "python": platform.python_version(),
        "versions": versions(),
    }


if __name__ == "__main__":
    print(json.dumps(find_machine()))
