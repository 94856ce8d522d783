"""`keras-bit pretrain`."""

import argparse
import pathlib
from typing import Any

from keras_bit.cli.console import make_console, shown_messages, write
from keras_bit.cli.options import (
    add_command,
    add_quiet,
    check_writable,
    depth,
    integer,
    number,
    path,
    width,
)

NAMES = (
    "families classes image_size batch_size steps learning_rate depth width seed output"
).split()


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "pretrain",
        run,
        "Pretrain a small BiT on synthetic images; stopped, it resumes when called again",
        "keras-bit pretrain --families scenes,contours --steps 10000 --output synthetic",
        ("keras",),
    )
    add_quiet(parser, prints_result=False)
    add = parser.add_argument
    families = ("scenes", "contours")
    text = "contours, fractals, leaves, networks, scenes, textures (default: scenes,contours)"
    add("--families", type=_names, default=families, metavar="NAME,...", help=text)
    for name, default, what in (
        ("--classes", 100, "of each family"),
        ("--image-size", 64, "edge in pixels"),
        ("--batch-size", 128, "images per step"),
        ("--steps", 10_000, "in all"),
        ("--seed", 0, "decides images and initial weights"),
    ):
        add(name, type=integer, default=default, metavar="N", help=f"{what} (default: {default:,})")
    text = "highest rate (default: 0.03 for every 256 images of a batch)"
    add("--learning-rate", type=number, metavar="X", help=text)
    text = "units of the four blocks (default: 1,1,1,1)"
    add("--depth", type=depth, default=(1, 1, 1, 1), metavar="N,N,N,N", help=text)
    text = "factor on all numbers of channels (default: 0.5)"
    add("--width", type=width, default=0.5, metavar="X", help=text)
    folder, text = "keras-bit-pretrain", "folder to write to (default: keras-bit-pretrain)"
    add("--output", type=path, default=folder, metavar="FOLDER", help=text)


def _names(text):
    return tuple(text.split(","))


def run(arguments: argparse.Namespace) -> None:
    """Pretrains, and tells where the weights lie."""
    from keras_bit.pretraining.pretrain import WEIGHTS_FILE, pretrain

    check_writable("output", arguments.output)
    console = make_console()
    with shown_messages(console):
        pretrain(**{name: getattr(arguments, name) for name in NAMES}, verbose=False)
    write(console, f"Weights: {pathlib.Path(arguments.output) / WEIGHTS_FILE}")
