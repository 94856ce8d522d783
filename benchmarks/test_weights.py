"""Time and peak memory of loading an npz file, beside `numpy.load` alone.

Every load is a process of its own, and the contenders take turns.
"""

import functools
import statistics

import pytest

import keras_bit
from benchmarks.conftest import RECORDING
from benchmarks.loading import CONTENDERS
from benchmarks.processes import measure, take_turns

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
    def results_of(network):
        path = tmp_path_factory.mktemp("weights") / "weights.npz"
        keras_bit.BiTBackbone(*network).save_npz(path)
        loads = {
            name: functools.partial(measure, "loading", {"contender": name, "path": str(path)})
            for name in CONTENDERS
        }
        results = take_turns(loads, ROUNDS)
        size = path.stat().st_size
        path.unlink()
        return size, results

    return results_of


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
