"""`keras-bit fine-tune FOLDER`."""

import argparse
from typing import TYPE_CHECKING, Any

from keras_bit.cli.console import make_console, show_result, shown_messages, training_progress
from keras_bit.cli.options import (
    add_command,
    add_output_options,
    add_quiet,
    add_run_options,
    check_output_folder,
    data_of,
    decisions_of,
    paths_of,
)

if TYPE_CHECKING:
    from rich.console import Console


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "fine-tune FOLDER",
        run,
        "Fine-tune BiT on a folder of photographs and write the classifier and a report; "
        "interrupted, it resumes when called again",
        "keras-bit fine-tune photos --batch-size 64 --output photos-bit",
        ("keras", "tensorflow"),
        "Without options, image sizes, schedule length and learning rate are those that suit the "
        "preset.",
    )
    add_quiet(parser, prints_result=False)
    add_run_options(parser)
    add_output_options(parser.add_argument_group("output"), "keras-bit-run")


def run(arguments: argparse.Namespace) -> None:
    """Plans the run, trains, and shows both; of several processes the first shows them."""
    from keras_bit.core.distribution import processes
    from keras_bit.training.distribution import join_processes

    join_processes()
    check_output_folder(arguments)
    decisions = decisions_of(arguments)
    console = make_console(quiet=processes().index > 0)
    run_shown(console, arguments, data_of(arguments, decisions), decisions)


def run_shown(console: "Console", arguments: argparse.Namespace, data: Any, decisions: Any) -> None:
    """One run of `keras_bit.fine_tune`, with arguments of `keras_bit.plan`, on `console`."""
    import keras_bit

    with shown_messages(console, paths_of(decisions)):
        plan = keras_bit.plan(data, verbose=0, **decisions)
        with training_progress(console, plan.rule) as progress:
            result = keras_bit.fine_tune(
                data,
                plan=plan,
                output=arguments.output,
                overwrite=arguments.overwrite,
                resume=arguments.resume,
                callbacks=[progress],
                verbose=0,
            )
    show_result(console, result)
