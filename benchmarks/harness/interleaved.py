"""Interleaved runs: implementations alternate, so that the machine's drift hits all alike."""

import gc
import random
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.harness.matrix_product import matrix_product_rate
from benchmarks.harness.tables import comparison_table

PRODUCT = "the matrix product"


class Round(NamedTuple):
    """What an implementation does in every round.

    Attributes:
        before: Called untimed: it warms up after the others, or clears away old results.
        timed: Called timed; it returns only when its results are there.
        after: Called untimed: it waits for what is still going on, in the way of the next one.
    """

    before: Callable
    timed: Callable
    after: Callable = lambda: None


class Outcome(NamedTuple):
    """What an interleaved run found.

    Attributes:
        seconds: From an implementation's name to its seconds, one for each round.
        extra_info: From an implementation's name to a dict of what else is worth keeping.
        lines: Lines of Markdown, tables among them.
        failed: From the name of an implementation that failed, which nothing else here has, to the
            reason.
    """

    seconds: dict
    extra_info: dict
    lines: list
    failed: dict = {}


class InterleavedRun(NamedTuple):
    """Implementations that do the same work in this process.

    Attributes:
        title: Says what is timed, and on which sizes.
        images: Number of images that go through in one timed call.
        rounds: Number of timed calls of every implementation.
        implementations: From a name to a function that makes the implementation's `Round`. Names
            of this package's own begin with `keras_bit`, all others are peers.
        operations: Multiplications and additions that one image takes, where these are the work:
            rates are then compared with that of a matrix product, timed in every round as well.
    """

    title: str
    images: int
    rounds: int
    implementations: dict
    operations: int = 0

    def run(self, names):
        """Returns the `Outcome` for the implementations called `names`.

        All of them are made and called once before the first round (tracing, compiling).
        """
        made, failed = interleave(
            {name: partial(_begin, self.implementations[name]) for name in names}, 1
        )
        calls = {name: partial(_play, each) for name, (each,) in made.items()}
        if self.operations:
            calls[PRODUCT] = matrix_product_rate
        seconds, failed_later = interleave(calls, self.rounds)
        limit = max(seconds.pop(PRODUCT, [0.0]))
        extra_info = {name: {"images per timed call": self.images} for name in seconds}
        return Outcome(seconds, extra_info, self._table(seconds, limit), failed | failed_later)

    def _table(self, seconds, limit):
        """Images per second, and where there is a limit the share of it."""
        title = f"{self.title}, {self.rounds} rounds"
        rates = {name: [self.images / time for time in times] for name, times in seconds.items()}
        if not limit:
            return comparison_table(title, "images/s", rates)
        shares = {
            name: f"{self.operations * statistics.median(rate) / limit:.0%}"
            for name, rate in rates.items()
        }
        heading = f"of the matrix product's {limit / 1e9:.0f} GFLOP/s"
        return comparison_table(title, "images/s", rates, columns={heading: shares})


def _begin(make):
    """Makes a `Round`, and plays it once."""
    made = make()
    _play(made)
    return made


def _play(made):
    """Returns the seconds of a `Round`."""
    made.before()
    gc.collect()
    seconds = timed(made.timed)
    made.after()
    return seconds


def interleave(calls, rounds, announce=lambda line: None):
    """Makes calls in turns, and continues without those that fail.

    Args:
        calls: From a name to a function without arguments.
        rounds: How often each is called.
        announce: Called with a line for each round, and for each call that fails.

    Returns:
        Two dicts: from a name to the list of what its call returned, one for each round; and from
        the name of one that failed, which is not in the first, to the error with its traceback.
    """
    found, failed = {name: [] for name in calls}, {}
    for number, order in enumerate(orders(calls, rounds), 1):
        announce(f"  round {number} of {rounds}")
        for name in order:
            if name in failed:
                continue
            try:
                found[name].append(calls[name]())
            except Exception as error:
                failed[name] = _reason(error)
                announce(f"    {name} failed: {last_line(failed[name])}")
    return {name: results for name, results in found.items() if name not in failed}, failed


def interleave_all(calls, rounds):
    """As `interleave`; returns what was found, and raises a `RuntimeError` if a call failed."""
    found, failed = interleave(calls, rounds)
    if failed:
        raise RuntimeError("\n".join(f"{name} failed:\n{why}" for name, why in failed.items()))
    return found


def outcome_of(run, names):
    """Returns the `Outcome` of a run; where the run itself fails, so do all of its `names`."""
    try:
        return run.run(names)
    except Exception as error:
        return Outcome({}, {}, [], dict.fromkeys(names, _reason(error)))


def _reason(error):
    """Text, for an error itself would keep alive all that lay in the functions it came through."""
    return "".join(traceback.format_exception(error)).strip()


def last_line(reason):
    return reason.splitlines()[-1]


def orders(names, rounds):
    """Yields `names` in a new order for every round, so that none always runs after the same."""
    random_orders = random.Random(0)
    for _ in range(rounds):
        yield random_orders.sample(sorted(names), len(names))


def timed(call):
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
