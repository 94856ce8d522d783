"""oneDNN, the library of fast convolutions in TensorFlow, on processors where that leaves it off.

On Linux TensorFlow switches it on by itself only where the processor has instructions for neural
networks (`DefaultOneDnnPolicy` in its `core/util/port.cc`). With AVX2 alone it pays as well; see
`benchmarks/results/onednn.md`. The variable counts only if it is set before TensorFlow is imported.

This module imports nothing of the package, so that tests and benchmarks can run it beforehand.
"""

import functools
import os
import pathlib
import sys

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
CPUINFO = pathlib.Path("/proc/cpuinfo")
ON_BY_DEFAULT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def enable_onednn() -> None:
    """Switches oneDNN on where TensorFlow would leave it off and it pays; else does nothing.

    A variable that is set stays as it is, and so does a TensorFlow that is loaded.
    """
    if is_left_off() and "tensorflow" not in sys.modules:
        os.environ[VARIABLE] = "1"


def is_left_off() -> bool:
    """Whether TensorFlow leaves oneDNN off on a processor with AVX2, and nobody has decided it."""
    flags = _processor_flags()
    return VARIABLE not in os.environ and "avx2" in flags and not flags & ON_BY_DEFAULT


@functools.cache
def _processor_flags() -> frozenset[str]:
    """The instruction sets of the processor on Linux; elsewhere TensorFlow decides as it should."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
