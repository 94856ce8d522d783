"""Runs the races that the suites name, each once, and reports them.

A suite has a function `races(full)` that returns its `Race`s, and one test with the arguments
`race` and `contender`.
"""

import platform
from importlib.metadata import PackageNotFoundError, version

import keras
import pytest

from benchmarks.races import Recording, markdown_table

PACKAGES = ("keras", "tensorflow", "jax", "torch", "timm", "numpy", "pillow")
RECORDING = Recording()
RESULTS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="the sizes of benchmarks/README.md (half an hour on two cores) in place of small ones",
    )


def pytest_configure(config):
    config.stash[RESULTS] = {}


def pytest_report_header(config):
    present = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    size = "full" if config.getoption("--full") else "small (--full for the real ones)"
    lines = [
        f"sizes: {size}",
        f"backend: {keras.backend.backend()}; {present}; Python {platform.python_version()}",
    ]
    if "missing" in (_version("torch"), _version("timm")):
        lines.append("timm is left out: it needs `pip install torch timm`")
    return lines


def pytest_generate_tests(metafunc):
    if {"race", "contender"} <= set(metafunc.fixturenames):
        races = metafunc.module.races(metafunc.config.getoption("--full"))
        entries = [_entry(race, name) for race in races for name in race.contenders]
        metafunc.parametrize(("race", "contender"), entries)


def _entry(race, contender):
    marks = pytest.mark.benchmark(timer=RECORDING, group=race.title)
    return pytest.param(race, contender, marks=marks, id=f"{race.title}: {contender}")


@pytest.fixture
def report(request, benchmark):
    """A function that runs a race, unless it has been run, and reports one of its contenders."""

    def report_contender(race, contender):
        results = request.config.stash[RESULTS]
        if race.title not in results:
            results[race.title] = race, race.run()
        RECORDING.load(results[race.title][1][contender])
        benchmark.extra_info["images per timed call"] = race.images
        benchmark.pedantic(RECORDING.play, rounds=race.rounds)

    return report_contender


def pytest_terminal_summary(terminalreporter, config):
    for race, seconds in config.stash[RESULTS].values():
        terminalreporter.write_line("")
        for line in markdown_table(race, seconds):
            terminalreporter.write_line(line)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
