"""Forward pass and training step of R50x1, beside what others run today."""

from functools import partial

from benchmarks.harness.cases import REAL, SMALL
from benchmarks.harness.interleaved import InterleavedRun, Round
from benchmarks.implementations.registry import IMPLEMENTATIONS


def interleaved_runs(full):
    case = REAL if full else SMALL
    one = case._replace(batch_size=1)
    rounds = 7 if full else 1
    runs = [
        _interleaved("forward", one, 4, rounds, full),
        _interleaved("training step", case, 1, rounds, full),
    ]
    if full:  # small, it would run what the first of them runs
        runs.append(_interleaved("forward", case, 1, rounds, full))
    return runs


def _interleaved(work, case, calls, rounds, full):
    implementations = {
        name: partial(_round, work, case, implementation, calls)
        for name, implementation in IMPLEMENTATIONS[work].items()
        # It takes half a minute to compile the smallest of networks.
        if full or "torch.compile" not in name
    }
    images, operations = calls * case.batch_size, case.operations(work)
    return InterleavedRun(f"{work}: {case}", images, rounds, implementations, operations)


def _round(work, case, implementation, calls):
    step = implementation.prepare()(work, case, case.weights())

    def timed():
        for _ in range(calls):
            step()

    # A training step takes so long that it needs no warming up after the others.
    return Round(step if work == "forward" else lambda: None, timed)


def test_network(interleaved_run, implementation, report):
    report(interleaved_run, implementation)
