"""Keras on JAX beside timm, in bfloat16 on a GPU: speed, memory, and where the time goes.

Needs keras, jax, numpy, torch and timm, but no TensorFlow: `KERAS_BACKEND=jax pytest
benchmarks/test_gpu.py --full`. Where there is no GPU, `--rehearse-gpu` runs the same code on the
CPU with a tiny network, which says that the code works and nothing of its speed.
"""

import functools
import importlib.util
import shutil
import statistics
import subprocess
from typing import NamedTuple

import pytest

from benchmarks.cases import Case
from benchmarks.contenders import HAS_TIMM
from benchmarks.processes import measure, take_turns
from benchmarks.races import Outcome, markdown_row, markdown_table

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)
SMALL = [Case((1, 1, 1, 1), edge=32, batch_size=2)]
REAL = [
    Case(R50, edge=224, batch_size=128),
    Case(R50, edge=480, batch_size=32),
    Case(R101, edge=224, batch_size=32, width=3),
    Case(R101, edge=480, batch_size=8, width=3),
]
# Processes share the GPU one after the other: JAX must not take all of its memory at once.
ENVIRONMENT = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
MODULES = {"keras_bit": "gpu_jax", "timm": "gpu_torch"}
CONTENDERS = {
    "forward": ("keras_bit", "keras_bit, folded", "timm, autocast", "timm, bfloat16"),
    "training step": ("keras_bit", "keras_bit, train_on_batch", "timm, autocast"),
}


class GpuRace(NamedTuple):
    """Contenders that do the same work on the GPU, each in processes of its own.

    Attributes:
        work: `"forward"` or `"training step"`.
        case: The `Case`.
        rounds: Number of processes of each contender.
        steps: Number of steps that are timed at a time.
    """

    work: str
    case: Case
    rounds: int
    steps: int

    @property
    def title(self):
        return f"GPU, {self.work}: {self.case}"

    @property
    def contenders(self):
        installed = {"keras_bit": importlib.util.find_spec("jax") is not None, "timm": HAS_TIMM}
        names = [name for name in CONTENDERS[self.work] if installed[name.partition(",")[0]]]
        return {name: functools.partial(self._measure, name) for name in names}

    def _measure(self, name):
        spec = {"module": MODULES[name.partition(",")[0]], "name": name, "work": self.work}
        sizes = {"case": self.case, "steps": self.steps, "repeats": 5}
        return measure("gpu", spec | sizes | {"rehearsal": not has_gpu()}, ENVIRONMENT)

    def run(self, names):
        """Returns the `Outcome` for the contenders called `names`."""
        found = take_turns({name: self.contenders[name] for name in names}, self.rounds)
        seconds = {
            name: [s for one in ones for s in one["seconds"]] for name, ones in found.items()
        }
        limit = max(one["product rate"] for ones in found.values() for one in ones)
        images, operations = self.case.batch_size, self.case.operations(self.work)
        rates = {name: [images / time for time in times] for name, times in seconds.items()}
        shares = {
            name: f"{operations * statistics.median(rate) / limit:.0%}"
            for name, rate in rates.items()
        }
        peaks = {name: max(one["peak"] for one in ones) for name, ones in found.items()}
        columns = {
            f"of the matrix product's {limit / 1e12:.3g} TFLOP/s": shares,
            "peak memory, MB": {name: f"{peak / 1e6:,.0f}" for name, peak in peaks.items()},
            "first result after, s": {
                name: f"{statistics.median(one['first'] for one in ones):.1f}"
                for name, ones in found.items()
            },
        }
        lines = markdown_table(self.title, "images/s", rates, columns=columns)
        for name, ones in found.items():
            lines += kernel_table(
                f"{self.title}: where the time of {name} goes", ones[0]["kernels"]
            )
        values = {name: ones[0]["second value"] for name, ones in found.items()}
        extra_info = {name: {"peak": peaks[name], "second value": values[name]} for name in found}
        return Outcome(seconds, extra_info, lines)


def kernel_table(title, kernels):
    rows = (markdown_row([f"`{name[:90]}`", f"{share:.1%}"]) for name, share in kernels)
    return ["", title, "", markdown_row(["kernel", "share"]), "|---|---|", *rows]


@functools.cache
def has_gpu():
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    listed = subprocess.run([command, "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout


def races(full):
    cases, rounds, steps = (REAL, 3, 20) if full else (SMALL, 1, 2)
    return [GpuRace(work, case, rounds, steps) for case in cases for work in CONTENDERS]


@pytest.fixture
def gpu(request):
    if not has_gpu() and not request.config.getoption("--rehearse-gpu"):
        pytest.skip("no GPU here; --rehearse-gpu runs the code on the CPU")


def test_gpu(gpu, race, contender, report):
    report(race, contender)


@pytest.mark.parametrize("work", CONTENDERS)
def test_contenders_agree(gpu, work):
    """On the mean feature, and on the loss after the same number of steps, to bfloat16's digits."""
    race = GpuRace(work, SMALL[0], 1, 2)
    found = {name: contender() for name, contender in race.contenders.items()}
    values = {name: result["second value"] for name, result in found.items()}
    expected = values["keras_bit"]
    assert values == {name: pytest.approx(expected, rel=0.05) for name in values}
