"""From the start of a process: seconds to import and to the first result, and peak memory."""

import time
from functools import partial

from benchmarks.contenders import CONTENDERS
from benchmarks.processes import ProcessRace, Quantity, measure
from benchmarks.test_network import REAL, SMALL

MEGABYTE = 1e-6
STEPS, PATIENCE = 3, 20.0


def races(full):
    case = REAL if full else SMALL
    rounds = 3 if full else 1
    return [_race(work, case, rounds, full) for work in CONTENDERS]


def _race(work, case, rounds, full):
    names = [name for name in CONTENDERS[work] if full or "compile" not in name]
    quantities = (
        Quantity("first", f"seconds to the first {work}"),
        Quantity("import", "seconds to import"),
        Quantity("peak beyond imports", "MB at the peak beyond those before the model", MEGABYTE),
        Quantity("peak", "MB at the peak in all", MEGABYTE),
    )
    contenders = {name: partial(start, work, case, name) for name in names}
    return ProcessRace(f"new process, {work}: {case}", rounds, contenders, quantities)


def start(work, case, name, steps=STEPS):
    """Measures a contender in a new process: see `benchmarks.fresh`."""
    spec = {"name": name, "work": work, "case": case, "started": time.time()}
    return measure("fresh", spec | {"steps": steps, "patience": PATIENCE})


def test_fresh(race, contender, report):
    report(race, contender)


def test_a_process_tells_its_peak_memory():
    import numpy as np

    from benchmarks.fresh import memory

    before, size = memory("VmHWM"), 512 * 2**20
    np.ones(size, np.uint8)
    assert memory("VmHWM") > max(before, memory("VmRSS") + 0.9 * size)
