"""`keras-bit download NAME...`."""

import argparse
from typing import Any

from keras_bit.cli.options import add_command, add_quiet


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "download NAME...",
        run,
        "Fill the cache with released weights ahead of time",
        "keras-bit download m-r50x1 m-r101x1",
    )
    add_quiet(parser, prints_result=True)
    parser.add_argument("names", metavar="NAME", nargs="+", help="see `keras-bit presets`")
    parser.renamed["name"] = "NAME"


def run(arguments: argparse.Namespace) -> None:
    """Downloads each preset and prints where it lies."""
    from keras_bit.weights.presets import find_preset

    presets = [find_preset(name) for name in arguments.names]
    for preset in presets:
        print(preset.path or _downloaded(preset))


def _downloaded(preset):
    from keras_bit.weights.fetch.download import fetch
    from keras_bit.weights.formats import read_copy

    try:
        return fetch(str(preset.url))
    except (ConnectionError, FileNotFoundError) as error:
        return read_copy(preset, error).source
