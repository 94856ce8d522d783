"""Races of processes: every turn of a contender is a new process, which tells what it measured."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import NamedTuple

from benchmarks.races import Outcome, markdown_table, orders

ROOT = pathlib.Path(__file__).parent.parent


def measure(module, spec, environment=()):
    """Runs `python -m benchmarks.MODULE` with `spec` as JSON; returns what it prints last.

    Args:
        module: Name of a module in `benchmarks`.
        spec: What it is to measure; of JSON's types.
        environment: Dict of environment variables to set.

    Raises:
        RuntimeError: If the process fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(spec)]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | dict(environment), capture_output=True, text=True
    )
    if process.returncode:
        raise RuntimeError(f"{module} {spec} failed ({process.returncode}):\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


class Quantity(NamedTuple):
    """One of the numbers that a process measures: its key, its name with the unit, its scale."""

    key: str
    name: str
    scale: float = 1.0
    more_is_better: bool = False


class ProcessRace(NamedTuple):
    """Contenders that do the same work, each time in a new process.

    Attributes:
        title: Says what is measured, and on which sizes.
        rounds: Number of processes of every contender.
        contenders: From a name to a function that runs a process and returns its measurements, a
            dict of numbers.
        quantities: The `Quantity`s to report, a table for each. The first is in seconds.
    """

    title: str
    rounds: int
    contenders: dict
    quantities: tuple

    def run(self, names):
        """Returns the `Outcome` for the contenders called `names`."""
        found = take_turns({name: self.contenders[name] for name in names}, self.rounds)
        seconds = values_of(found, self.quantities[0].key)
        extra_info = {name: medians_of(results) for name, results in found.items()}
        return Outcome(
            seconds, extra_info, [line for table in self._tables(found) for line in table]
        )

    def _tables(self, found):
        for quantity in self.quantities:
            values = {
                name: [quantity.scale * value for value in values]
                for name, values in values_of(found, quantity.key).items()
            }
            title = f"{self.title}: {quantity.name}, {self.rounds} rounds"
            yield markdown_table(
                title, quantity.name, values, more_is_better=quantity.more_is_better
            )
            yield [""]


def take_turns(contenders, rounds):
    """From a contender's name to the list of its measurements, one for each round."""
    found = {name: [] for name in contenders}
    for order in orders(contenders, rounds):
        for name in order:
            found[name].append(contenders[name]())
    return found


def values_of(found, key):
    return {name: [result[key] for result in results] for name, results in found.items()}


def medians_of(results):
    return {key: statistics.median(result[key] for result in results) for key in results[0]}
