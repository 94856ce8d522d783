"""`keras-bit demo`."""

import argparse
from typing import Any

from keras_bit.cli.console import make_console
from keras_bit.cli.fine_tune import run_shown
from keras_bit.cli.options import add_command, add_from_scratch, add_output_options, network_of

DEMO_RULE = {
    "batch_size": 128,
    "schedule_length": 400,
    "warmup": True,
    "learning_rate": 0.03,
    "resize_edge": 36,
    "crop_size": 32,
    "mixup_alpha": 0.1,
    "random_flip": False,
}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "Learn to read handwritten digits in a minute or two, without network or GPU",
        "keras-bit demo --output digits",
        ("keras", "tensorflow"),
    )
    add_output_options(parser, "keras-bit-demo")
    add_from_scratch(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")


def run(arguments: argparse.Namespace) -> None:
    """A whole run on scikit-learn's digits."""
    from keras_bit.data import digits
    from keras_bit.training.run_folder import check_output

    check_output(arguments.output, arguments.overwrite)
    console = make_console()
    weights = "random weights" if arguments.from_scratch else "weights from synthetic images"
    console.print(
        f"scikit-learn's handwritten digits, a small BiT with {weights}, and BiT-HyperRule "
        "with a shorter schedule, smaller images and a larger rate than it would choose:"
    )
    decisions = {**DEMO_RULE, **network_of(arguments), "seed": arguments.seed}
    run_shown(console, arguments, digits(seed=arguments.seed), decisions)
