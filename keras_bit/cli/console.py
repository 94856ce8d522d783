"""What the commands show: tables, aligned text, and the progress of a run."""

import contextlib
import io
import itertools
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from keras_bit.hyperrule import HyperRule
    from keras_bit.training import FineTuneResult

_Item = TypeVar("_Item")

UNLIMITED_WIDTH = 1000  # of output that is no terminal: whoever reads it wraps it
STDERR, STDOUT = "stderr", "stdout"
_SPACE = "\0"  # stands for a space at which no line is broken: no path can hold it
_errors: list[TextIO] = []  # standard error, as long as other things must not go there


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


def write(console: "Console", text: str) -> None:
    """Prints lines as they are: the terminal continues long ones, and a path in them is whole."""
    console.print(text, soft_wrap=True)


def show(console: "Console", text: str, paths: Sequence[str | None] = ()) -> None:
    """Prints lines, or tables of `core.text`: as a list where the terminal is narrower.

    No line is broken within one of the `paths`, or within a word.
    """
    if max(map(len, text.splitlines())) <= console.width:
        write(console, text)
        return
    for path in filter(None, paths):
        text = text.replace(path, path.replace(" ", _SPACE))
    first, *others = text.splitlines()
    for line in (first, *others):
        if others:
            name, *rest = re.split(r" {2,}", line.strip())
            value = f": {rest[0]}" if rest else ""
            reason = f" ({rest[1]})" if rest[1:] else ""
            line = name + value + reason
        write(console, fill(line, console.width))


def fill(text: str, width: int) -> str:
    """Returns `text` in lines of this width, none of them broken within a word.

    >>> print(fill("distill/r50x1_224: a long-winded description", 20))
    distill/r50x1_224: a
      long-winded
      description
    """
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    lines = textwrap.wrap(text, width, subsequent_indent="  ", **options)
    return "\n".join(lines).replace(_SPACE, " ")


def complain(message: str) -> None:
    """Prints a line on stderr, which `silence` does not hide."""
    print(f"keras-bit: {message}", file=_errors[-1] if _errors else sys.stderr)


@contextlib.contextmanager
def silence(streams: Sequence[str]) -> Iterator[None]:
    """Drops what is written to `STDERR` or `STDOUT`, but for `complain`."""
    redirections = {STDERR: contextlib.redirect_stderr, STDOUT: contextlib.redirect_stdout}
    with contextlib.ExitStack() as stack:
        _errors.append(_errors[-1] if _errors else sys.stderr)
        stack.callback(_errors.pop)
        for stream in streams:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirections[stream](nowhere))
        yield


@contextlib.contextmanager
def shown_messages(
    console: "Console",
    paths: Sequence[str | None] = (),
    chosen: Callable[[str], bool] = lambda message: True,
) -> Iterator[None]:
    """Prints on `console` what the package logs and is `chosen`, with the `paths` in it whole."""

    class Handler(logging.Handler):
        def emit(self, record):
            if chosen(record.getMessage()):
                show(console, record.getMessage(), paths)

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
def messages_above(console: "Console") -> Iterator[None]:
    """Prints what goes to a terminal's stderr above what is live on `console`, but no bars."""

    class Above(io.StringIO):
        def write(self, text):
            if text.strip():
                write(console, text.rstrip("\n"))
            return len(text)

    if not sys.stderr.isatty():
        yield
        return
    above = Above()
    _errors.append(above)
    try:
        with contextlib.redirect_stderr(above):
            yield
    finally:
        _errors.pop()


def track(console: "Console", items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Passes `items` on, with a bar on a terminal."""
    with _bar(console, what, transient=True) as progress:
        task = progress.add_task("", total=total)
        for item in items:
            yield item
            progress.advance(task)


@contextlib.contextmanager
def training_progress(console: "Console", rule: "HyperRule") -> Iterator[Any]:
    """Yields a callback that shows a bar on a terminal, and a line for every epoch."""
    import keras

    from keras_bit.models.classifier import score_name

    progress = _bar(console, "Updates")
    task = progress.add_task("", total=rule.schedule_length)
    steps = itertools.count(1)

    def begin_of_epoch(epoch, logs):
        nonlocal steps
        steps = itertools.count(epoch * shown.params["steps"] + 1)  # A resumed run begins later.

    def end_of_batch(batch, logs):
        progress.update(task, completed=next(steps) // rule.accumulation_steps)

    def end_of_epoch(epoch, logs):
        score = score_name(multi_label="accuracy" not in logs)
        console.print(
            f"update {logs['updates']:,}: loss {logs['loss']:.4f}, "
            f"{score} {logs[score]:.1%}; validation {logs['val_loss']:.4f}, "
            f"{logs[f'val_{score}']:.1%}"
        )

    shown = keras.callbacks.LambdaCallback(
        # Not earlier: building the cache of images has a bar of its own.
        on_train_begin=lambda logs: progress.start(),
        on_epoch_begin=begin_of_epoch,
        on_train_batch_end=end_of_batch,
        on_epoch_end=end_of_epoch,
        on_train_end=lambda logs: progress.live.stop(),
    )
    try:
        yield shown
    finally:
        progress.live.stop()


def show_result(console: "Console", result: "FineTuneResult") -> None:
    """Prints how a run went, and where its files lie."""
    from keras_bit.evaluation.report import PAGE_FILE
    from keras_bit.evaluation.saved_run import MODEL_FILE

    metrics = result.metrics
    if "accuracy" in metrics:
        score = f"Accuracy {metrics['accuracy']:.2%}"
    else:
        score = f"Mean average precision {metrics['mean_average_precision']:.3f}"
    console.print(
        f"{score} on {metrics['validation_images']:,} validation images, with the weights after "
        f"update {metrics['best_update']:,} ({metrics['training_seconds']:.0f} s of training)."
    )
    if result.output:
        write(console, f"Model: {result.output / MODEL_FILE}\nReport: {result.output / PAGE_FILE}")


def _bar(console: "Console", what: str, **options: Any) -> "Progress":
    """A bar on a terminal. What is written to stdout arrives where stdout leads."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (what, BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    options = {**options, "disable": not console.is_terminal, "redirect_stdout": False}
    return Progress(*columns, console=console, **options)
