"""From the start of a process: seconds to import and to the first result, and peak memory."""

from functools import partial

from benchmarks.harness.cases import REAL, SMALL
from benchmarks.harness.processes import InterleavedProcesses, Quantity, measure_network
from benchmarks.harness.tables import OWN
from benchmarks.implementations.registry import (
    COMPILED,
    HAS_JAX,
    IMPLEMENTATIONS,
    own_name,
    plain_name,
)

MEGABYTE = 1e-6


def interleaved_runs(full):
    case = REAL if full else SMALL
    rounds = 3 if full else 1
    works = IMPLEMENTATIONS if full else ("training step",)
    return [_interleaved(work, case, rounds, full) for work in works]


def _interleaved(work, case, rounds, full):
    few = (own_name(work), plain_name(work), "timm, contiguous")  # to see that the suite runs
    names = [name for name in IMPLEMENTATIONS[work] if full or name in few]
    quantities = (
        Quantity("first", f"seconds to the first {work}"),
        Quantity("import", "seconds to import"),
        Quantity("peak beyond imports", "MB at the peak beyond those before the model", MEGABYTE),
        Quantity("peak", "MB at the peak in all", MEGABYTE),
    )
    starts = {name: partial(measure_network, work, case, name) for name in names}
    if full and HAS_JAX:
        name, on_jax = f"{OWN}{COMPILED}", {"KERAS_BACKEND": "jax"}
        starts[f"{OWN} on JAX"] = partial(measure_network, work, case, name, environment=on_jax)
    return InterleavedProcesses(f"new process, {work}: {case}", rounds, starts, quantities)


def test_first_result(interleaved_run, implementation, report):
    report(interleaved_run, implementation)


def test_a_process_tells_its_peak_memory():
    import numpy as np

    from benchmarks.harness.memory import memory

    before, size = memory("VmHWM"), 512 * 2**20
    np.ones(size, np.uint8)
    assert memory("VmHWM") > max(before, memory("VmRSS") + 0.9 * size)
