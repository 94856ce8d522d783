"""Time and peak memory of loading an npz file, beside `numpy.load` alone."""

import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras_bit
from benchmarks.harness.processes import InterleavedProcesses, Quantity, measure
from benchmarks.harness.weights_process import IMPLEMENTATIONS

SMALL = [(50, 1)]
REAL = [(50, 1), (101, 3), (152, 4)]


class LoadingRun(NamedTuple):
    """Loads of a file of weights, each in a new process.

    Attributes:
        network: Depth and width.
        rounds: Number of loads by every implementation.
    """

    network: tuple
    rounds: int

    @property
    def title(self):
        return "loading R{}x{}".format(*self.network)

    @property
    def implementations(self):
        return IMPLEMENTATIONS

    def run(self, names):
        """Returns the `Outcome` for the implementations called `names`; the file does not stay."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "weights.npz")
            keras_bit.BiTBackbone(*self.network).save_npz(path)
            loads = {name: partial(_load, name, path) for name in names}
            quantities = _quantities(path.stat().st_size)
            return InterleavedProcesses(self.title, self.rounds, loads, quantities).run(names)


def _load(implementation, path):
    return measure("harness.weights_process", {"implementation": implementation, "path": str(path)})


def _quantities(size):
    return (
        Quantity("seconds", "seconds"),
        Quantity("peak", "MB at the peak", 1e-6),
        Quantity("peak", f"times the file's {size / 1e6:,.0f} MB at the peak", 1 / size),
    )


def interleaved_runs(full):
    return [LoadingRun(network, 3) for network in (REAL if full else SMALL)]


def test_loading(interleaved_run, implementation, report):
    report(interleaved_run, implementation)
