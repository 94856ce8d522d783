"""What the commands show: tables, aligned text, and the progress of a run."""

import contextlib
import itertools
import logging
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from keras_bit.hyperrule import HyperRule
    from keras_bit.training import FineTuneResult

UNLIMITED_WIDTH = 1000  # of output that is no terminal: whoever reads it wraps it


def make_console(**arguments: Any) -> "Console":
    """Returns a rich console; where the output is no terminal its lines are left whole."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, **arguments)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED_WIDTH
    return console


def make_table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """Returns an empty rich table; the columns in `right` are aligned on that side."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        if column in right:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def show(console: "Console", text: str) -> None:
    """Prints lines, or tables of `core.text`: as a list where the terminal is narrower."""
    lines = text.splitlines()
    if max(map(len, lines)) <= console.width or len(lines) == 1:
        console.print(text)
        return
    for line in lines:
        name, *rest = re.split(r" {2,}", line.strip())
        value = f": {rest[0]}" if rest else ""
        reason = f" ({rest[1]})" if rest[1:] else ""
        console.print(textwrap.fill(name + value + reason, console.width, subsequent_indent="  "))


@contextlib.contextmanager
def shown_messages(console: "Console") -> Iterator[None]:
    """Prints on `console` what the package logs of its runs."""

    class Handler(logging.Handler):
        def emit(self, record):
            show(console, record.getMessage())

    logger, handler = logging.getLogger("keras_bit"), Handler()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


@contextlib.contextmanager
def training_progress(console: "Console", rule: "HyperRule") -> Iterator[Any]:
    """Yields a callback that shows a bar on a terminal, and a line for every epoch."""
    import keras
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("Updates", BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    task = progress.add_task("", total=rule.schedule_length)
    steps = itertools.count(1)

    def end_of_batch(batch, logs):
        progress.update(task, completed=next(steps) // rule.accumulation_steps)

    def end_of_epoch(epoch, logs):
        console.print(
            f"update {logs['updates']:,}: loss {logs['loss']:.4f}, "
            f"accuracy {logs['accuracy']:.1%}; validation {logs['val_loss']:.4f}, "
            f"{logs['val_accuracy']:.1%}"
        )

    try:
        yield keras.callbacks.LambdaCallback(
            # Not earlier: building the cache of images has a bar of its own.
            on_train_begin=lambda logs: progress.start(),
            on_train_batch_end=end_of_batch,
            on_epoch_end=end_of_epoch,
            on_train_end=lambda logs: progress.live.stop(),
        )
    finally:
        progress.live.stop()


def show_result(console: "Console", result: "FineTuneResult") -> None:
    """Prints how a run went, and where its files lie."""
    from keras_bit.evaluation.predict import MODEL_FILE
    from keras_bit.evaluation.report import PAGE_FILE

    metrics = result.metrics
    console.print(
        f"Accuracy {metrics['accuracy']:.2%} on {metrics['validation_images']:,} validation "
        f"images, with the weights after update {metrics['best_update']:,} "
        f"({metrics['training_seconds']:.0f} s of training)."
    )
    if result.output:
        console.print(f"Model: {result.output / MODEL_FILE}\nReport: {result.output / PAGE_FILE}")
