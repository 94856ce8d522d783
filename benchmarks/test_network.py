"""Forward pass and training step of R50x1, beside what others run today."""

from functools import partial

from benchmarks.cases import Case
from benchmarks.contenders import CONTENDERS
from benchmarks.races import Race, Turn

SMALL = Case((1, 1, 1, 1), edge=64, batch_size=2)
REAL = Case((3, 4, 6, 3), edge=224, batch_size=8)


def races(full):
    case = REAL if full else SMALL
    one = case._replace(batch_size=1)
    rounds = 7 if full else 3
    return [
        _race("forward", case, 1, rounds, full),
        _race("forward", one, 4, rounds, full),
        _race("training step", case, 1, rounds, full),
    ]


def _race(work, case, calls, rounds, full):
    turns = {
        name: partial(_turn, work, case, contender, calls)
        for name, contender in CONTENDERS[work].items()
        # It takes half a minute to compile the smallest of networks.
        if full or "torch.compile" not in name
    }
    images = calls * case.batch_size
    return Race(f"{work}: {case}", images, rounds, turns, case.operations(work))


def _turn(work, case, contender, calls):
    step = contender.prepare()(work, case, case.weights())

    def timed():
        for _ in range(calls):
            step()

    # A training step takes so long that it needs no warming up after the others' turns.
    return Turn(step if work == "forward" else lambda: None, timed)


def test_network(race, contender, report):
    report(race, contender)
