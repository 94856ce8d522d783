"""Races: contenders take turns, so that drift of the machine hits all of them alike."""

import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

OWN = "keras_bit"


class Turn(NamedTuple):
    """What a contender does when its turn comes.

    Attributes:
        before: Called untimed: it warms up after the others' turns, or clears away old results.
        timed: Called timed; it returns only when its results are there.
    """

    before: Callable
    timed: Callable


class Race(NamedTuple):
    """Contenders that do the same work.

    Attributes:
        title: Says what is timed, and on which sizes.
        images: Number of images that go through in one timed call.
        rounds: Number of timed calls of every contender.
        contenders: From a name to a function that makes the contender's `Turn`. Names of this
            package's own contenders begin with `keras_bit`, all others are peers.
    """

    title: str
    images: int
    rounds: int
    contenders: dict

    def run(self):
        """Returns the seconds of every contender, one per round.

        All contenders are made and called once before the first round (tracing, compiling). Their
        order is new in every round, so that none always runs after the same one.
        """
        turns = {name: make() for name, make in self.contenders.items()}
        for turn in turns.values():
            turn.before()
            turn.timed()
        seconds = {name: [] for name in turns}
        orders = random.Random(0)
        for _ in range(self.rounds):
            for name in orders.sample(sorted(turns), len(turns)):
                turns[name].before()
                gc.collect()
                start = time.perf_counter()
                turns[name].timed()
                seconds[name].append(time.perf_counter() - start)
        return seconds


class Recording:
    """Hands the times of a race to pytest-benchmark, which does not let contenders take turns.

    An instance is pytest-benchmark's timer; `play` is what it believes it times.
    """

    def __init__(self):
        self._now = 0.0
        self._seconds = iter(())

    def __call__(self):
        return self._now

    def load(self, seconds):
        self._seconds = iter(seconds)

    def play(self):
        self._now += next(self._seconds)


def markdown_table(race, seconds):
    """Returns the lines of a table: images per second and ratios to the best peer's median."""
    medians = {name: race.images / statistics.median(times) for name, times in seconds.items()}
    best = max((rate for name, rate in medians.items() if not name.startswith(OWN)), default=None)
    lines = [
        f"{race.title}, {race.rounds} rounds",
        "",
        "| contender | images/s, median | range | to the best peer |",
        "|---|---|---|---|",
    ]
    for name, median in sorted(medians.items(), key=lambda item: -item[1]):
        slowest, fastest = race.images / max(seconds[name]), race.images / min(seconds[name])
        ratio = f"{median / best:.2f}x" if best else ""
        lines.append(f"| {name} | {median:.1f} | {slowest:.1f} to {fastest:.1f} | {ratio} |")
    return lines
