"""Runs the races that the suites name, each once, and reports them.

A suite has a function `races(full)` that returns its races (`benchmarks.races.Race` or another
class with `title`, `rounds`, `contenders` and `run`), and one test with the arguments `race` and
`contender`. Contenders that are deselected, with `-k` for example, do not run.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import pytest

from benchmarks.races import Recording

PACKAGES = ("keras", "tensorflow", "jax", "torch", "timm", "numpy", "pillow")
RECORDING = Recording()
SELECTED = pytest.StashKey()
OUTCOMES = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="the sizes of benchmarks/README.md in place of small ones",
    )
    parser.addoption("--rounds", type=int, help="the number of rounds of every race")
    parser.addoption(
        "--authors",
        metavar="FOLDER",
        help="a checkout of google-research/big_transfer: its PyTorch network takes part",
    )
    parser.addoption(
        "--rehearse-gpu",
        action="store_true",
        help="run test_gpu.py on the CPU where there is no GPU, to see that its code works",
    )


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "default")  # in place of `error`, as for the tests
    config.stash[OUTCOMES] = {}
    config.stash[SELECTED] = {}
    if config.getoption("--authors"):
        # Before `benchmarks.contenders` is imported, and for the processes that are started.
        os.environ["KERAS_BIT_AUTHORS"] = os.path.abspath(config.getoption("--authors"))


def pytest_report_header(config):
    from benchmarks import contenders

    present = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    size = "full" if config.getoption("--full") else "small (--full for the real ones)"
    backend = os.environ.get("KERAS_BACKEND", "Keras's default")
    python = platform.python_version()
    lines = [f"sizes: {size}", f"backend: {backend}; {present}; Python {python}"]
    skipped = {
        "timm: `pip install 'keras_bit[peers]'`": not contenders.HAS_TIMM,
        "hub.KerasLayer: `pip install 'setuptools<81'`": not contenders.HAS_HUB,
        "authors' PyTorch: --authors FOLDER": not contenders.HAS_AUTHORS,
    }
    lines += [f"skipped: {peer}" for peer, absent in skipped.items() if absent]
    return lines


def pytest_generate_tests(metafunc):
    if {"race", "contender"} <= set(metafunc.fixturenames):
        races = metafunc.module.races(metafunc.config.getoption("--full"))
        if rounds := metafunc.config.getoption("--rounds"):
            races = [race._replace(rounds=rounds) for race in races]
        entries = [_entry(race, name) for race in races for name in race.contenders]
        metafunc.parametrize(("race", "contender"), entries)


def _entry(race, contender):
    marks = pytest.mark.benchmark(timer=RECORDING, group=race.title)
    return pytest.param(race, contender, marks=marks, id=f"{race.title}: {contender}")


def pytest_collection_finish(session):
    for item in session.items:
        parameters = getattr(item, "callspec", None) and item.callspec.params
        if parameters and {"race", "contender"} <= set(parameters):
            race, contender = parameters["race"], parameters["contender"]
            session.config.stash[SELECTED].setdefault(race.title, []).append(contender)


@pytest.fixture
def report(request, benchmark):
    """A function that runs a race, unless it has been run, and reports one of its contenders."""

    def report_contender(race, contender):
        outcomes = request.config.stash[OUTCOMES]
        if race.title not in outcomes:
            outcomes[race.title] = race.run(request.config.stash[SELECTED][race.title])
        seconds = outcomes[race.title].seconds[contender]
        RECORDING.load(seconds)
        benchmark.extra_info |= outcomes[race.title].extra_info[contender]
        benchmark.pedantic(RECORDING.play, rounds=len(seconds))

    return report_contender


def pytest_terminal_summary(terminalreporter, config):
    for outcome in config.stash[OUTCOMES].values():
        terminalreporter.write_line("")
        for line in outcome.lines:
            terminalreporter.write_line(line)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
