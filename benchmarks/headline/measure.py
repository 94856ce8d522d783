"""What the headline table has: a training step and inference, the first step, and memory."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.harness.cases import REAL, SMALL
from benchmarks.harness.gpu_run import GpuRun
from benchmarks.harness.interleaved import interleave, last_line
from benchmarks.harness.processes import measure_network
from benchmarks.harness.tables import Row, is_own
from benchmarks.implementations import registry

STEPS, GPU_STEPS = 5, 20
GPU_BATCH = 128
MEMORY = "memory of training at the peak, beyond the imports"
# What runs on a CPU beside Keras's two, by the work; those that are installed.
CPU_PEERS = {
    "training step": (
        "timm, channels_last",
        "timm, contiguous",
        "hub.KerasLayer",
        "authors' PyTorch",
    ),
    "forward": (
        "timm, channels_last",
        "timm, contiguous",
        "timm, contiguous, torch.compile",
        "hub.KerasLayer, jit_compile",
        "authors' PyTorch",
    ),
}


class Work(NamedTuple):
    """One of the works that are measured.

    Attributes:
        name: `"training step"` or `"forward"`.
        batch_size: Images in a step.
        implementations: From a name to a function that runs a process and returns a dict with
            `step` and `first` in seconds, `peak` in bytes and, of the memory of a process, `peak
            beyond imports`.
    """

    name: str
    batch_size: int
    implementations: dict[str, Callable]


def choose_works(machine, small=False):
    """Returns the three `Work`s for the device that `find_machine` found; as `small`, the first."""
    if machine["kind"] == "cpu":
        case, of_work = (SMALL if small else REAL), partial(_on_cpu, machine["backend"], small)
    else:
        case = SMALL if small else REAL._replace(batch_size=GPU_BATCH)
        of_work = partial(_on_gpu, machine["backend"])
    cases = [("training step", case)]
    if not small:
        cases += [("forward", case), ("forward", case._replace(batch_size=1))]
    return [Work(name, each.batch_size, of_work(name, each)) for name, each in cases]


def _on_cpu(backend, small, work, case):
    names = [registry.own_name(work, backend), registry.plain_name(work, backend)]
    if not small:
        names += CPU_PEERS[work]
    return {
        name: partial(measure_network, work, case, name, steps=2 if small else STEPS)
        for name in names
        if name in registry.IMPLEMENTATIONS[work]
    }


def _on_gpu(backend, work, case):
    """Of this package what runs on the backend, and all peers."""
    run = GpuRun(work, case, rounds=1, steps=GPU_STEPS, rehearsal=False)
    modules = registry.GPU_IMPLEMENTATIONS[work]
    return {
        name: measure
        for name, measure in run.implementations.items()
        if not is_own(name) or modules[name] == f"{backend}_gpu"
    }


def measure_works(works, rounds, announce=print):
    """Measures works one after the other, each of them interleaved.

    Yields:
        After each work the `Row`s so far, and a dict from what is missing in them to the reason:
            what failed, and the works that have not had their turn. A row has a value of this
            package's own.
    """
    rows, missing = [], registry.not_installed()
    for number, work in enumerate(works, 1):
        announce(f"{describe(work)}: {', '.join(work.implementations)}")
        calls = {
            name: partial(_announced, name, measure, announce)
            for name, measure in work.implementations.items()
        }
        found, failed = interleave(calls, rounds, announce)
        missing |= {f"{name}, {describe(work)}": last_line(why) for name, why in failed.items()}
        if any(map(is_own, found)):
            rows += _rows(work, found)
        rest = {describe(later): "the command did not come to it" for later in works[number:]}
        yield sorted(rows, key=lambda row: row.more_is_better, reverse=True), missing | rest


def _announced(name, measure, announce):
    result = measure()
    announce(f"    {name}: {result['step']:.3g} s a step")
    return result


def describe(work):
    what = "training" if work.name == "training step" else "inference"
    return f"{what}, {'one image' if work.batch_size == 1 else f'batch {work.batch_size}'}"


def _rows(work, found):
    rows = [_row(describe(work), "images/s", found, _rate_at(work.batch_size), True)]
    if work.name == "training step":
        rows.append(_row("first training step of a program", "s", found, _first, False))
        rows.append(_row(MEMORY, "MB", found, _peak, False))
    return rows


def _row(title, unit, found, quantity, more_is_better):
    values = {name: list(map(quantity, results)) for name, results in found.items()}
    return Row(title, unit, values, more_is_better)


def _rate_at(batch_size):
    return lambda result: batch_size / result["step"]


def _first(result):
    return result["first"]


def _peak(result):
    """Of the memory of a process, or that of a GPU, of which imports take nothing."""
    return 1e-6 * result.get("peak beyond imports", result["peak"])
