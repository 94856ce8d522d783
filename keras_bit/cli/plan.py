"""`keras-bit plan FOLDER`."""

import argparse
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import make_console, make_table, show, shown_messages, write
from keras_bit.cli.options import (
    add_command,
    add_quiet,
    add_run_options,
    data_of,
    decisions_of,
    paths_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from keras_bit.training.data_summary import DataSummary

LISTED_CLASSES = 30
LISTED_FILES = 10


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "plan FOLDER",
        run,
        "Show what a run on a folder would do, without training",
        "keras-bit plan photos --batch-size 64",
        ("keras",),
    )
    add_quiet(parser, prints_result=True)
    add_run_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, as `RunPlan.to_json` does")


def run(arguments: argparse.Namespace) -> None:
    """Plans a run and shows the classes, what is skipped, and the plan."""
    import keras_bit

    decisions = decisions_of(arguments)
    console = make_console()
    data = data_of(arguments, decisions)
    with shown_messages(make_console(stderr=True), paths_of(decisions)):
        plan = keras_bit.plan(data, verbose=0, **decisions)
    if arguments.json:
        print(plan.to_json(), end="")
        return
    _show_classes(console, plan.data)
    _show_skipped(console, data.skipped)
    show(console, str(plan), paths_of(decisions))


def _show_classes(console: "Console", data: "DataSummary") -> None:
    from rich.text import Text

    table = make_table("class", "training", "validation", right=("training", "validation"))
    rows = list(zip(data.label_names, data.train_counts, data.test_counts, strict=True))
    for name, train, test in rows[:LISTED_CLASSES]:
        table.add_row(Text(name), f"{train:,}", f"{test:,}")
    if len(rows) > LISTED_CLASSES:
        table.add_row(f"and {len(rows) - LISTED_CLASSES:,} more", "", "")
    table.add_section()
    table.add_row(f"{len(rows):,} classes", f"{data.train_size:,}", f"{data.test_size:,}")
    console.print(table)


def _show_skipped(console, skipped):
    if not skipped:
        return
    console.print(f"Skipped: {len(skipped):,}")
    for name, reason in skipped[:LISTED_FILES]:
        write(console, f"  {name}: {reason}")
    if len(skipped) > LISTED_FILES:
        console.print(f"  and {len(skipped) - LISTED_FILES:,} more")
