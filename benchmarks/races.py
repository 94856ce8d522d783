"""Races: contenders take turns, so that drift of the machine hits all of them alike."""

import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.limits import matrix_product_rate

OWN = "keras_bit"


class Turn(NamedTuple):
    """What a contender does when its turn comes.

    Attributes:
        before: Called untimed: it warms up after the others' turns, or clears away old results.
        timed: Called timed; it returns only when its results are there.
    """

    before: Callable
    timed: Callable


class Outcome(NamedTuple):
    """What came out of a race.

    Attributes:
        seconds: From a contender's name to its seconds, one for each round.
        extra_info: From a contender's name to a dict of what else is worth keeping.
        lines: Lines of Markdown, tables among them.
    """

    seconds: dict
    extra_info: dict
    lines: list


class Race(NamedTuple):
    """Contenders that do the same work.

    Attributes:
        title: Says what is timed, and on which sizes.
        images: Number of images that go through in one timed call.
        rounds: Number of timed calls of every contender.
        contenders: From a name to a function that makes the contender's `Turn`. Names of this
            package's own contenders begin with `keras_bit`, all others are peers.
        operations: Multiplications and additions that one image takes, where these are the work:
            rates are then compared with that of a matrix product, timed once in every round.
    """

    title: str
    images: int
    rounds: int
    contenders: dict
    operations: int = 0

    def run(self, names):
        """Returns the `Outcome` for the contenders called `names`.

        All contenders are made and called once before the first round (tracing, compiling).
        """
        turns = {name: self.contenders[name]() for name in names}
        for turn in turns.values():
            turn.before()
            turn.timed()
        seconds = {name: [] for name in turns}
        products = [0.0]
        for order in orders(turns, self.rounds):
            if self.operations:
                products.append(matrix_product_rate())
            for name in order:
                turns[name].before()
                gc.collect()
                start = time.perf_counter()
                turns[name].timed()
                seconds[name].append(time.perf_counter() - start)
        extra_info = {name: {"images per timed call": self.images} for name in turns}
        return Outcome(seconds, extra_info, self._table(seconds, max(products)))

    def _table(self, seconds, limit):
        """Images per second, and where there is a limit the share of it."""
        title = f"{self.title}, {self.rounds} rounds"
        rates = {name: [self.images / time for time in times] for name, times in seconds.items()}
        if not limit:
            return markdown_table(title, "images/s", rates)
        shares = {
            name: f"{self.operations * statistics.median(rate) / limit:.0%}"
            for name, rate in rates.items()
        }
        heading = f"of the matrix product's {limit / 1e9:.0f} GFLOP/s"
        return markdown_table(title, "images/s", rates, columns={heading: shares})


def orders(names, rounds):
    """Yields `names` in a new order for every round, so that none always runs after the same."""
    random_orders = random.Random(0)
    for _ in range(rounds):
        yield random_orders.sample(sorted(names), len(names))


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


def markdown_table(title, quantity, values, *, more_is_better=True, columns=None):
    """Returns the lines of a table, the best contender first.

    Args:
        title: What stands above the table.
        quantity: What was measured, with its unit.
        values: From a contender's name to its values, one for each round.
        more_is_better: Whether large values are good; the last column is the ratio of a median to
            that of the best peer.
        columns: Further columns: from a heading to a dict from names to texts.
    """
    columns = columns or {}
    medians = {name: statistics.median(found) for name, found in values.items()}
    peers = [median for name, median in medians.items() if not name.startswith(OWN)]
    best = (max if more_is_better else min)(peers, default=None)
    headings = ["contender", f"{quantity}, median", "range", "to the best peer", *columns]
    lines = [title, "", markdown_row(headings), "|" + "---|" * len(headings)]
    for name in sorted(medians, key=medians.get, reverse=more_is_better):
        ratio = f"{medians[name] / best:.2f}x" if best else ""
        span = f"{_number(min(values[name]))} to {_number(max(values[name]))}"
        further = (texts[name] for texts in columns.values())
        lines.append(markdown_row([name, _number(medians[name]), span, ratio, *further]))
    return lines


def _number(value):
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}"


def markdown_row(cells):
    return f"| {' | '.join(cells)} |"
