"""`keras-bit presets [TEXT]`."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import fill, make_console, make_table, write
from keras_bit.cli.options import add_command

if TYPE_CHECKING:
    from rich.console import Console

    from keras_bit.weights import Preset

TABLE_WIDTH = 100


def add(commands: Any) -> None:
    parser = add_command(
        commands, "presets [TEXT]", run, "List the released weights", "keras-bit presets r50x1"
    )
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", default="", help="only those whose name has this in it"
    )


def run(arguments: argparse.Namespace) -> None:
    """Lists the presets whose names hold a text."""
    from keras_bit.weights import presets

    text = arguments.text.lower()
    found = [preset for preset in presets().values() if text in preset.name]
    if not found:
        raise ValueError(
            f"`TEXT` must be a part of a preset's name. Received: {arguments.text!r}. "
            "`keras-bit presets` lists all of them."
        )
    shown = [preset for preset in found if text or not preset.name.startswith("vtab/")]
    console = make_console()
    _show(console, shown)
    if len(shown) < len(found):
        console.print(
            f"and {len(found) - len(shown)} runs on the tasks of VTAB-1k: keras-bit presets vtab"
        )


def _show(console: "Console", presets: Sequence["Preset"]) -> None:
    """A table; where the terminal is too narrow for it, a list."""
    numbers = ("parameters", "classes", "pixels", "top-1 %")
    table = make_table("preset", *numbers, "trained on", right=numbers)
    for preset in presets:
        name, *facts = (
            preset.name,
            f"{preset.parameters / 1e6:.1f}M",
            f"{preset.num_classes:,}" if preset.num_classes else "",
            str(preset.image_size),
            "" if preset.accuracy is None else f"{preset.accuracy:.1f}",
            preset.trained_on,
        )
        if console.width < TABLE_WIDTH:
            named = zip(facts, (*numbers, ""), strict=True)
            listed = ", ".join(f"{fact} {what}".strip() for fact, what in named if fact)
            write(console, fill(f"{name}: {listed}", console.width))
        else:
            table.add_row(name, *facts)
    if table.row_count:
        console.print(table)
    console.print("top-1: accuracy on ILSVRC-2012 as published by the authors")
