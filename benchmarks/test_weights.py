"""Time and peak memory of loading an npz file, beside `numpy.load` alone.

Every load is a process of its own, and the contenders take turns.
"""

import functools
import json
import pathlib
import statistics
import subprocess
import sys

import pytest

import keras_bit
from benchmarks.conftest import RECORDING
from benchmarks.loading import CONTENDERS

ROUNDS = 3
SMALL = [(50, 1)]
REAL = [(50, 1), (101, 3), (152, 4)]


def pytest_generate_tests(metafunc):
    networks = REAL if metafunc.config.getoption("--full") else SMALL
    metafunc.parametrize("network", networks, ids=lambda network: "R{}x{}".format(*network))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A function from a network to the measurements of every contender."""

    @functools.cache
    def measure(network):
        path = tmp_path_factory.mktemp("weights") / "weights.npz"
        keras_bit.BiTBackbone(*network).save_npz(path)
        results = {name: [] for name in CONTENDERS}
        for _ in range(ROUNDS):
            for name in CONTENDERS:
                results[name].append(load_in_a_process(name, path))
        size = path.stat().st_size
        path.unlink()
        return size, results

    return measure


def load_in_a_process(name, path):
    command = [sys.executable, "-m", "benchmarks.loading", name, str(path)]
    root = pathlib.Path(__file__).parent.parent
    output = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.benchmark(timer=RECORDING)
def test_loading(network, contender, measured, benchmark, capsys):
    size, results = measured(network)
    benchmark.group = "loading R{}x{}".format(*network)
    peak = statistics.median(result["peak"] for result in results[contender])
    benchmark.extra_info |= {"file size": size, "peak memory": peak}
    RECORDING.load([result["seconds"] for result in results[contender]])
    benchmark.pedantic(RECORDING.play, rounds=ROUNDS)
    seconds = [result["seconds"] for result in results[contender]]
    with capsys.disabled():
        print(
            f"\n{benchmark.group}, {contender}: {statistics.median(seconds):.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f}), peak {peak / 1e6:,.0f} MB, "
            f"{peak / size:.2f}x the file of {size / 1e6:,.0f} MB"
        )
