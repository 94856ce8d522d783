"""Figures as text: medians with ranges, and tables in Markdown."""

import statistics
from typing import NamedTuple

OWN = "keras_bit"  # what the names of this package's own implementations begin with


class Row(NamedTuple):
    """A quantity of every implementation: a line of the headline table, a panel of a picture.

    Attributes:
        title: What was measured.
        unit: Its unit.
        values: From an implementation's name to its values, one for each round.
        more_is_better: Whether large values are good.
    """

    title: str
    unit: str
    values: dict
    more_is_better: bool


def markdown_row(cells):
    return f"| {' | '.join(map(str, cells))} |"


def markdown_table(headings, rows):
    """Returns the lines of a table."""
    return [markdown_row(headings), "|" + "---|" * len(headings), *map(markdown_row, rows)]


def median_and_range(values, spec=None):
    """Returns such as `"1.25 (1.20 to 1.31)"`, of one value that alone.

    Numbers are formatted by `spec`, by default as `number` does.
    """
    found = (f(values) for f in (min, statistics.median, max))
    low, middle, high = (number(x) if spec is None else f"{x:{spec}}" for x in found)
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def number(value):
    """Returns a number with a precision that suits its size."""
    digits = 2 if value < 10 else 1 if value < 1000 else 0
    return f"{value:,.{digits}f}"


def is_own(name):
    """Whether an implementation is one of this package; all others are peers."""
    return name.startswith(OWN)


def best_peer(medians, more_is_better=True):
    """Returns the name of the best peer, or `None` where there is none."""
    peers = [name for name in medians if not is_own(name)]
    return (max if more_is_better else min)(peers, key=medians.get, default=None)


def comparison_table(title, quantity, values, *, more_is_better=True, columns=None):
    """Returns the lines of a titled table, the best implementation first.

    Args:
        title: What stands above the table.
        quantity: What was measured, with its unit.
        values: From an implementation's name to its values, one for each round.
        more_is_better: Whether large values are good; the last column is the ratio of a median to
            that of the best peer.
        columns: Further columns: from a heading to a dict from names to texts.
    """
    columns = columns or {}
    medians = {name: statistics.median(found) for name, found in values.items()}
    best = medians.get(best_peer(medians, more_is_better))
    headings = ["implementation", f"{quantity}, median", "range", "to the best peer", *columns]
    rows = []
    for name in sorted(medians, key=medians.get, reverse=more_is_better):
        ratio = f"{medians[name] / best:.2f}x" if best else ""
        span = f"{number(min(values[name]))} to {number(max(values[name]))}"
        further = (texts[name] for texts in columns.values())
        rows.append([name, number(medians[name]), span, ratio, *further])
    return [title, "", *markdown_table(headings, rows)]
