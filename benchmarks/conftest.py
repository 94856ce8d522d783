"""Makes the interleaved runs that the suites name, each once, and reports them.

A suite has a function `interleaved_runs(full)` that returns them (objects with `title`, `rounds`,
`implementations` and `run`), and one test with the arguments `interleaved_run` and
`implementation`. Implementations that are deselected, with `-k` for example, do not run.
"""

import os
import platform

import pytest

from benchmarks.harness.interleaved import outcome_of
from benchmarks.harness.machine import processor, versions
from benchmarks.harness.processes import ON_CPU
from benchmarks.harness.recording import RECORDING

PARAMETERS = ("interleaved_run", "implementation")
SELECTED = pytest.StashKey()
OUTCOMES = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--full",
        action="store_true",
        help="the sizes of benchmarks/results in place of small ones",
    )
    parser.addoption("--rounds", type=int, help="the number of rounds of every interleaved run")
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
    # Before a framework is imported: what runs in this process must not hold memory of a GPU, which
    # the processes of test_gpu.py see.
    os.environ.update(ON_CPU)
    if config.getoption("--authors"):
        # Before the registry is imported, and for the processes that are started.
        os.environ["KERAS_BIT_AUTHORS"] = os.path.abspath(config.getoption("--authors"))


def pytest_report_header(config):
    from benchmarks.implementations.registry import not_installed

    present = ", ".join(f"{package} {found or 'missing'}" for package, found in versions().items())
    size = "full" if config.getoption("--full") else "small (--full for the real ones)"
    backend = os.environ.get("KERAS_BACKEND", "Keras's default")
    python = platform.python_version()
    lines = [f"sizes: {size}", f"processor: {processor()}"]
    lines.append(f"backend: {backend}; {present}; Python {python}")
    return lines + [f"skipped: {peer}, {reason}" for peer, reason in not_installed().items()]


def pytest_generate_tests(metafunc):
    if set(PARAMETERS) <= set(metafunc.fixturenames):
        runs = metafunc.module.interleaved_runs(metafunc.config.getoption("--full"))
        if rounds := metafunc.config.getoption("--rounds"):
            runs = [run._replace(rounds=rounds) for run in runs]
        entries = [_entry(run, name) for run in runs for name in run.implementations]
        metafunc.parametrize(PARAMETERS, entries)


def _entry(run, implementation):
    marks = pytest.mark.benchmark(timer=RECORDING, group=run.title)
    return pytest.param(run, implementation, marks=marks, id=f"{run.title}: {implementation}")


def pytest_collection_finish(session):
    for item in session.items:
        parameters = getattr(item, "callspec", None) and item.callspec.params
        if parameters and set(PARAMETERS) <= set(parameters):
            run, implementation = (parameters[name] for name in PARAMETERS)
            session.config.stash[SELECTED].setdefault(run.title, []).append(implementation)


@pytest.fixture
def report(request, benchmark):
    """A function that makes a run, unless it was made, and reports one implementation of it."""

    def report_implementation(run, implementation):
        outcome = made_once(request.config, run)
        if implementation in outcome.failed:
            pytest.fail(outcome.failed[implementation], pytrace=False)
        seconds, extra_info = (x[implementation] for x in (outcome.seconds, outcome.extra_info))
        RECORDING.report(benchmark, seconds, extra_info)

    return report_implementation


def made_once(config, run):
    """Returns the `Outcome` of a run, which is made the first time, and not again if it fails."""
    outcomes = config.stash[OUTCOMES]
    if run.title not in outcomes:
        outcomes[run.title] = outcome_of(run, config.stash[SELECTED][run.title])
    return outcomes[run.title]


def pytest_terminal_summary(terminalreporter, config):
    for outcome in config.stash[OUTCOMES].values():
        terminalreporter.write_line("")
        for line in outcome.lines:
            terminalreporter.write_line(line)
