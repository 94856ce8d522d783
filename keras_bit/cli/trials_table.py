"""The table of a search's trials, while it runs."""

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from keras_bit.cli.console import make_table, messages_above
from keras_bit.core.text import list_some

if TYPE_CHECKING:
    from rich.console import Console, Group

    from keras_bit.tuning.progress import SearchProgress

LISTED = 10  # trials
LONGEST_REASON = 100  # characters; study.html has the rest


@contextlib.contextmanager
def live_table(
    console: "Console", read: Callable[[], "SearchProgress | None"], names: Mapping[str, str]
) -> Iterator[None]:
    """Shows the trials at the foot of a terminal, once a second, and leaves the last state there.

    Args:
        console: A terminal.
        read: Returns the `SearchProgress`, or `None` as long as there is none.
        names: What to call hyperparameters, by keras-tuner's names.
    """
    from rich.live import Live

    def draw():
        progress = read()
        return trials_table(progress, names, console) if progress else "Preparing the search."

    live = Live(
        console=console,
        get_renderable=draw,
        refresh_per_second=1,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with messages_above(console), live:
        yield


def trials_table(
    progress: "SearchProgress", names: Mapping[str, str], console: "Console"
) -> "Group":
    """Returns the last trials and the best, as many as fit the terminal, and what is going on."""
    for listed in range(LISTED, 0, -1):
        drawn = _table_of(progress, names, listed)
        if len(console.render_lines(drawn)) < console.height:
            break
    return drawn


def _table_of(progress, names, listed):
    from rich.console import Group
    from rich.text import Text

    best = progress.best
    shown = list(progress.trials)[-listed:]
    if best and best not in shown:
        shown = [best, *shown[1:]]
    table = make_table(
        *("trial", "status", "changes", "score", "time"), right=("trial", "score", "time")
    )
    table.columns[1].no_wrap = True
    for trial in shown:
        cells = (
            str(trial.number),
            "done" if trial.status == "completed" else trial.status,
            _changes(trial, names),
            "" if trial.score is None else f"{trial.score:.4f}",
            f"{trial.seconds:.0f} s",
        )
        table.add_row(*map(Text, cells), style="bold" if trial is best else None)
    return Group(table, *map(Text, _remarks(progress, len(progress.trials) - len(shown))))


def _changes(trial, names):
    changed = (f"{names.get(k, k)} {_text(v)}" for k, v in trial.changes.items())
    return ", ".join(changed) or "the rule"


def _text(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _remarks(progress, hidden):
    """What is going on, in lines."""
    if hidden:
        yield f"{hidden} further trials are not listed."
    failed = [trial for trial in progress.trials if trial.reason]
    for trial in failed[-1:]:
        reason = textwrap.shorten(trial.reason, LONGEST_REASON, placeholder=" ...")
        yield f"Trial {trial.number} has failed: {reason}"
    if progress.best:
        yield f"Best {progress.objective} so far: trial {progress.best.number}."
    running = [str(trial.number) for trial in progress.trials if trial.status == "running"]
    if running:
        yield f"Running: trial {list_some(running, LISTED)}."
    compared = sorted({*progress.repeats, *(number for number, _ in progress.repeating)})
    if compared:
        yield "Trained again with further seeds, to compare with the rule:"
    for number in compared:
        scores = [
            "failed" if score is None else f"{score:.4f}"
            for score in progress.repeats.get(number, {}).values()
        ]
        seeds = [f"seed {seed} is running" for n, seed in progress.repeating if n == number]
        yield f"  trial {number}: {', '.join([*scores, *seeds])}"
