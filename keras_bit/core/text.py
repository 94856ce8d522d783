"""Tables and sizes as text."""

import logging
from collections.abc import Iterable, Sequence

_WHERE = ("Graph execution error:", "Detected at node", 'File "', "<stack traces unavailable>")


def table(title: str, rows: Iterable[Sequence[object]]) -> str:
    """Returns a title and, below it, rows of name, value and remark, in columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in (0, 1)]
    lines = [title]
    for name, value, remark in cells:
        lines.append(f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {remark}".rstrip())
    return "\n".join(lines)


def readable_size(size: float) -> str:
    """Returns a number of bytes for people, in powers of 1,000.

    >>> readable_size(19_660_800_000)
    '19.7 GB'
    """
    from rich.filesize import decimal

    return decimal(round(size))


def list_some(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Returns the first `most` of some items as text, and how many more there are.

    >>> list_some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = len(items) - most
    return separator.join(items[:most]) + (f" and {more:,} more" if more > 0 else "")


def first_line(message: str) -> str:
    """Returns the first line of an error's message that says what has happened.

    TensorFlow says first where, in many lines.

    >>> first_line("Graph execution error:\\n\\nDetected at node x defined at\\n\\nNo such class.")
    'No such class.'
    """
    lines = (line.strip() for line in message.splitlines())
    return next((line for line in lines if line and not line.startswith(_WHERE)), "")


def announce(message: str, verbose: bool | int | str = True) -> None:
    """Prints a line on how a run goes where `verbose`, and always logs it to `"keras_bit"`."""
    logging.getLogger("keras_bit").info(message)
    if verbose:
        print(message, flush=True)
