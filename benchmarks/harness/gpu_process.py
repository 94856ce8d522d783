"""Measures an implementation on the GPU, in this process, and tells what it measured.

Run by `benchmarks.harness.gpu_run`: `python -m benchmarks.harness.gpu_process SPEC`. Images lie on
the device before anything is timed, and clocks stop only after the device has done all that it was
asked.
"""

import importlib
import json
import statistics
import sys
import time

from benchmarks.harness.cases import Case

MATRIX_EDGE = {False: 8192, True: 512}  # of the matrix product; by whether it is a rehearsal
PRODUCTS = 20
KERNELS = 10
WARM_UP = 3


def main(module, name, work, case, started, steps, repeats, rehearsal, profile):
    """Returns seconds of a step and to the first result, bytes at the peak, and where time goes.

    And the mean of what the second step gave, for comparison with others.

    Args:
        module: `"jax_gpu"`, `"tensorflow_gpu"` or `"torch_gpu"`, which has the functions
            `check_device(rehearsal)`, `start(name, work, case)`, `wait_for(result)`,
            `peak_memory()`, `matrix_product(edge)` and, where it can profile,
            `kernel_seconds(do)`.
        name: Name of the implementation, for that module's `start`.
        work: `"forward"` or `"training step"`.
        case: The fields of a `Case`.
        started: What `time.time()` was when the process was started.
        steps: Number of steps that are timed at a time.
        repeats: How often so many are timed.
        rehearsal: Whether to do with a CPU.
        profile: Whether to tell where the time goes.
    """
    units, *sizes = case
    case = Case(tuple(units), *sizes)
    framework = importlib.import_module(f"benchmarks.implementations.{module}")
    framework.check_device(rehearsal)
    do = framework.start(name, work, case)
    framework.wait_for(do())
    first = time.time() - started
    value = statistics.fmean(framework.numbers(do()))
    timed(framework, do, WARM_UP)
    seconds = [timed(framework, do, steps) / steps for _ in range(repeats)]
    peak = framework.peak_memory()
    product = framework.matrix_product(MATRIX_EDGE[rehearsal])
    timed(framework, product, PRODUCTS)
    product_seconds = min(timed(framework, product, PRODUCTS) / PRODUCTS for _ in range(3))
    return {
        "seconds": seconds,
        "step": statistics.median(seconds),
        "first": first,
        "peak": peak,
        "product rate": 2 * MATRIX_EDGE[rehearsal] ** 3 / product_seconds,
        "kernels": profiled(framework, do, rehearsal) if profile else [],
        "second value": value,
    }


def timed(framework, do, times):
    """Seconds from asking for the first of so many runs until the last is done."""
    start = time.perf_counter()
    for _ in range(times):
        result = do()
    framework.wait_for(result)
    return time.perf_counter() - start


def profiled(framework, do, rehearsal):
    """The `shares` of kernels; none where the framework cannot profile."""
    if not hasattr(framework, "kernel_seconds"):
        return []
    try:
        return shares(framework.kernel_seconds(lambda: timed(framework, do, WARM_UP)))
    except Exception:
        # Not everybody may profile a GPU, and what was measured must not be lost by it.
        if rehearsal:
            raise
        return []


def shares(kernel_seconds):
    """The costliest kernels as (name, share of the device's time)."""
    total = sum(kernel_seconds.values())
    if not total:
        return []
    largest = sorted(kernel_seconds.items(), key=lambda item: -item[1])[:KERNELS]
    return [(name, seconds / total) for name, seconds in largest]


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    if spec["module"] != "tensorflow_gpu":
        # Keras imports it where it is there, even on JAX: a rehearsal shows that none is needed.
        sys.modules["tensorflow"] = None
    print(json.dumps(main(**spec)))
