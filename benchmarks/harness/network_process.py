"""Does a work of an implementation in this process, and tells what importing and starting cost.

Run by `measure_network`: `python -m benchmarks.harness.network_process SPEC`.
"""

import json
import os
import statistics
import sys
import time

from benchmarks.harness.cases import Case
from benchmarks.harness.interleaved import timed
from benchmarks.harness.memory import memory
from benchmarks.implementations.registry import find


def main(name, work, case, started, steps, patience):
    """Returns seconds to import, to the first result, and of later steps; and bytes at the peak.

    Args:
        name: Name of the implementation.
        work: `"forward"` or `"training step"`.
        case: The fields of a `Case`.
        started: What `time.time()` was when the process was started.
        steps: Number of timed steps after the first.
        patience: Seconds after which no further step begins.
    """
    units, *sizes = case
    case = Case(tuple(units), *sizes)
    make = find(work, name).prepare()
    imported = time.time() - started
    before = memory("VmRSS")
    weights = case.weights()
    start = time.perf_counter()
    do = make(work, case, weights)
    del weights
    do()
    first = imported + time.perf_counter() - start
    seconds = timed_steps(do, steps, patience)
    peak = memory("VmHWM")
    return {
        "first": first,
        "import": imported,
        "step": statistics.median(seconds),
        "fastest step": min(seconds),
        "slowest step": max(seconds),
        "peak": peak,
        "peak beyond imports": peak - before,
    }


def timed_steps(do, steps, patience):
    seconds = []
    while len(seconds) < steps and sum(seconds) < patience:
        seconds.append(timed(do))
    return seconds


if __name__ == "__main__":
    # Else the compiled code of an earlier process would be found again.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    print(json.dumps(main(**json.loads(sys.argv[1]))))
