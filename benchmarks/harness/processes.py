"""Interleaved processes: in every round each implementation is measured by a new process."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks.harness.interleaved import Outcome, interleave
from benchmarks.harness.tables import comparison_table

ROOT = pathlib.Path(__file__).parent.parent.parent
STEPS, PATIENCE = 3, 20.0
# Else Keras would be on a GPU, and PyTorch beside it on the CPU.
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
# What the user chose: `benchmarks/conftest.py` sets these variables for its own process.
_CHOSEN = {name: os.environ.get(name) for name in ON_CPU}


def measure(module, spec, environment=(), on_cpu=True):
    """Runs `python -m benchmarks.MODULE` with `spec` as JSON; returns what it prints last.

    Args:
        module: Name of a module in `benchmarks`, such as `"harness.network_process"`.
        spec: What it is to measure; of JSON's types.
        environment: Dict of environment variables to set.
        on_cpu: Whether to hide GPUs; else those are seen that the user chose.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(spec)]
    variables = {**os.environ, **(ON_CPU if on_cpu else _CHOSEN), **dict(environment)}
    variables = {name: value for name, value in variables.items() if value is not None}
    process = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{module} {spec} failed ({process.returncode}):\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def measure_network(work, case, name, steps=STEPS, environment=()):
    """Measures an implementation of the network: see `benchmarks.harness.network_process`."""
    spec = {"name": name, "work": work, "case": case, "started": time.time()}
    spec |= {"steps": steps, "patience": PATIENCE}
    return measure("harness.network_process", spec, environment)


def measure_pipeline(name, case, timed, cores=None):
    """Measures an input pipeline: see `benchmarks.harness.pipeline_process`."""
    spec = {"implementation": name, "folder": case.folder, "case": case}
    return measure("harness.pipeline_process", spec | {"timed": timed, "cores": cores})


class Quantity(NamedTuple):
    """One of the numbers that a process measures: its key, its name with the unit, its scale."""

    key: str
    name: str
    scale: float = 1.0
    more_is_better: bool = False


class InterleavedProcesses(NamedTuple):
    """Implementations that do the same work, each time in a new process.

    Attributes:
        title: Says what is measured, and on which sizes.
        rounds: Number of processes of every implementation.
        implementations: From a name to a function that runs a process and returns its
            measurements, a dict of numbers.
        quantities: The `Quantity`s to report, a table for each. The first is in seconds.
    """

    title: str
    rounds: int
    implementations: dict
    quantities: tuple

    def run(self, names):
        """Returns the `Outcome` for the implementations called `names`."""
        calls = {name: self.implementations[name] for name in names}
        found, failed = interleave(calls, self.rounds)
        seconds = values_of(found, self.quantities[0].key)
        extra_info = {name: medians_of(results) for name, results in found.items()}
        lines = [line for table in self._tables(found) for line in table]
        return Outcome(seconds, extra_info, lines, failed)

    def _tables(self, found):
        for quantity in self.quantities:
            values = {
                name: [quantity.scale * value for value in values]
                for name, values in values_of(found, quantity.key).items()
            }
            title = f"{self.title}: {quantity.name}, {self.rounds} rounds"
            yield comparison_table(
                title, quantity.name, values, more_is_better=quantity.more_is_better
            )
            yield [""]


def values_of(found, key):
    return {name: [result[key] for result in results] for name, results in found.items()}


def medians_of(results):
    return {key: statistics.median(result[key] for result in results) for key in results[0]}
