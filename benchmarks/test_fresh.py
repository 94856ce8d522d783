"""From the start of a process: seconds to import and to the first result, and peak memory."""

import importlib.util
import time
from functools import partial

from benchmarks.contenders import CONTENDERS
from benchmarks.processes import ProcessRace, Quantity, measure
from benchmarks.test_network import REAL, SMALL

MEGABYTE = 1e-6
STEPS, PATIENCE = 3, 20.0
COMPILED = "keras_bit, jit_compile"  # on JAX everything is compiled


def races(full):
    case = REAL if full else SMALL
    rounds = 3 if full else 1
    works = CONTENDERS if full else ("training step",)
    return [_race(work, case, rounds, full) for work in works]


def _race(work, case, rounds, full):
    names = [name for name in CONTENDERS[work] if full or "compile" not in name]
    quantities = (
        Quantity("first", f"seconds to the first {work}"),
        Quantity("import", "seconds to import"),
        Quantity("peak beyond imports", "MB at the peak beyond those before the model", MEGABYTE),
        Quantity("peak", "MB at the peak in all", MEGABYTE),
    )
    contenders = {name: partial(start, work, case, name) for name in names}
    if full and importlib.util.find_spec("jax"):
        on_jax = {"environment": {"KERAS_BACKEND": "jax"}}
        contenders["keras_bit on JAX"] = partial(start, work, case, COMPILED, **on_jax)
    return ProcessRace(f"new process, {work}: {case}", rounds, contenders, quantities)


def start(work, case, name, steps=STEPS, environment=()):
    """Measures a contender in a new process: see `benchmarks.fresh`."""
    spec = {"name": name, "work": work, "case": case, "started": time.time()}
    return measure("fresh", spec | {"steps": steps, "patience": PATIENCE}, environment)


def test_fresh(race, contender, report):
    report(race, contender)


def test_a_process_tells_its_peak_memory():
    import numpy as np

    from benchmarks.memory import memory

    before, size = memory("VmHWM"), 512 * 2**20
    np.ones(size, np.uint8)
    assert memory("VmHWM") > max(before, memory("VmRSS") + 0.9 * size)
