"""`keras-bit demo`."""

import argparse
from typing import Any

from keras_bit.cli.console import make_console
from keras_bit.cli.fine_tune import run_shown
from keras_bit.cli.options import (
    add_command,
    add_from_scratch,
    add_output_options,
    add_quiet,
    check_output_folder,
    integer,
    network_of,
)


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "Learn to read handwritten digits in one to three minutes, without network or GPU",
        "keras-bit demo --output digits",
        ("keras", "tensorflow"),
    )
    add_output_options(parser, "keras-bit-demo")
    add_from_scratch(parser)
    add_quiet(parser, prints_result=False)
    parser.add_argument("--seed", type=integer, default=0, metavar="N", help="default: 0")


def run(arguments: argparse.Namespace) -> None:
    """A whole run on scikit-learn's digits."""
    from keras_bit.data import digits

    check_output_folder(arguments)
    data = digits(seed=arguments.seed)
    console = make_console()
    weights = "random weights" if arguments.from_scratch else "weights from synthetic images"
    console.print(
        f"scikit-learn's handwritten digits, a small BiT with {weights}, and the rule that suits "
        "it, without flips:"
    )
    decisions = {"random_flip": False, **network_of(arguments), "seed": arguments.seed}
    run_shown(console, arguments, data, decisions)
