"""Interleaved processes on a GPU: speed, memory, and where the time goes."""

import functools
import itertools
import shutil
import statistics
import subprocess
import time
from typing import NamedTuple

from benchmarks.harness.cases import Case
from benchmarks.harness.interleaved import Outcome, interleave
from benchmarks.harness.processes import measure
from benchmarks.harness.tables import comparison_table, markdown_table
from benchmarks.implementations.registry import GPU_IMPLEMENTATIONS

ENVIRONMENT = {
    # Processes share the GPU one after the other: none must take all of its memory at once.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    # Else the compiled code of an earlier process would be found again.
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
}
REPEATS = 5


class GpuRun(NamedTuple):
    """Implementations that do the same work on the GPU, each in processes of its own.

    Attributes:
        work: `"forward"` or `"training step"`.
        case: The `Case`.
        rounds: Number of processes of each implementation.
        steps: Number of steps that are timed at a time.
        rehearsal: Whether to do with a CPU.
    """

    work: str
    case: Case
    rounds: int
    steps: int
    rehearsal: bool

    @property
    def title(self):
        return f"GPU, {self.work}: {self.case}"

    @property
    def implementations(self):
        modules = GPU_IMPLEMENTATIONS[self.work]
        return {
            name: functools.partial(self._measure, name, module) for name, module in modules.items()
        }

    def _measure(self, name, module, profile=False):
        spec = {"module": module, "name": name, "work": self.work, "case": self.case}
        spec |= {"steps": self.steps, "repeats": REPEATS, "rehearsal": self.rehearsal}
        spec |= {"profile": profile, "started": time.time()}
        backend = "tensorflow" if module == "tensorflow_gpu" else "jax"
        environment = {**ENVIRONMENT, "KERAS_BACKEND": backend}
        return measure("harness.gpu_process", spec, environment, on_cpu=False)

    def run(self, names):
        """Returns the `Outcome` for the implementations called `names`."""
        calls = {name: profiled_once(self.implementations[name]) for name in names}
        found, failed = interleave(calls, self.rounds)
        seconds = {
            name: [s for one in ones for s in one["seconds"]] for name, ones in found.items()
        }
        limit = max((one["product rate"] for ones in found.values() for one in ones), default=0.0)
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
        lines = comparison_table(self.title, "images/s", rates, columns=columns)
        for name, ones in found.items():
            if kernels := ones[0]["kernels"]:
                lines += kernel_table(f"{self.title}: where the time of {name} goes", kernels)
        values = {name: ones[0]["second value"] for name, ones in found.items()}
        extra_info = {name: {"peak": peaks[name], "second value": values[name]} for name in found}
        return Outcome(seconds, extra_info, lines, failed)


def profiled_once(measure):
    """A function that calls `measure`, the first time with a profile."""
    profile = itertools.chain([True], itertools.repeat(False))
    return lambda: measure(profile=next(profile))


def kernel_table(title, kernels):
    rows = [[f"`{name[:90]}`", f"{share:.1%}"] for name, share in kernels]
    return ["", title, "", *markdown_table(["kernel", "share"], rows)]


@functools.cache
def has_gpu():
    """Whether NVIDIA's driver lists a GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    listed = subprocess.run([command, "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout
