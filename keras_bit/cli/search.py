"""`keras-bit search FOLDER`."""

import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

from keras_bit.cli.console import make_console, shown_messages, write
from keras_bit.cli.options import (
    DATA_OPTIONS,
    add_command,
    add_output,
    add_quiet,
    add_run_options,
    check_outside,
    check_writable,
    data_of,
    decisions_of,
    given,
    integer,
    number,
    paths_of,
    source_of,
)
from keras_bit.cli.trials_table import live_table
from keras_bit.cli.vary import hyperparameters_of, space_of
from keras_bit.cli.workers import Workers, is_started_by_chief, stop_with_chief

TUNERS = ("random", "bayesian", "grid", "hyperband")
SETTINGS = ("trials", "tuner", "repeats", "keep", "hours", "epochs")
CACHE_FOLDER = "trials/.cache"  # goes with the trials
# Options that a rule leaves to the command which trains with it.
BESIDE_RULE = (
    "preset depth width freeze_backbone frozen_blocks weight_decay dropout class_weight remat dtype"
).split()


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "search FOLDER",
        run,
        "Search around the rule with keras-tuner, and keep the rule unless a trial is better by "
        "more than the noise; interrupted, it resumes when called again",
        "keras-bit search photos --trials 12 --vary rate,length --output photos-search",
        ("keras", "tensorflow"),
        "The best trials and the rule are trained again with further seeds at the end.",
    )
    add_quiet(parser, prints_result=False)
    add = parser.add_argument_group("search").add_argument
    add("--trials", type=integer, default=12, metavar="N", help="the rule among them (default: 12)")
    text = "what is searched: names among rate, length, mixup, crop, batch, warmup, preset, "
    text += "frozen, decay and dropout, or one of them with its values, as often as needed: "
    text += "rate=0.3,1,3 (default: rate,length,mixup)"
    add("--vary", dest="space", action="append", default=[], metavar="NAME,...", help=text)
    text = f"{', '.join(TUNERS[:-1])} or {TUNERS[-1]} (default: random)"
    add("--tuner", type=_tuner, default="random", metavar="NAME", help=text)
    text = "further seeds, at least 2, of the comparison with the rule (default: 3)"
    add("--repeats", type=integer, default=3, metavar="N", help=text)
    text = "number of best trials whose weights are kept (default: 1)"
    add("--keep", type=integer, default=1, metavar="N", help=text)
    text = "begin no trial that would end, with the comparison, later than this"
    add("--hours", type=number, metavar="X", help=text)
    text = "validations in the course of each trial (default: 10)"
    add("--epochs", type=integer, default=10, metavar="N", help=text)
    text = "processes that train trials at the same time on this machine (default: 1)"
    add("--workers", type=integer, default=1, metavar="N", help=text)
    add_run_options(parser, with_steps=False)
    add_output(parser.add_argument_group("output"), "keras-bit-search", "search")
    parser.set_defaults(kept=_kept)


def _tuner(text):
    if text not in TUNERS:
        names = f"{', '.join(TUNERS[:-1])} or {TUNERS[-1]}"
        raise argparse.ArgumentTypeError(f"must be {names}. Received: {text!r}")
    return text


def run(arguments: argparse.Namespace) -> None:
    """Searches, shows the trials, and what to do with the outcome."""
    from keras_tuner.src import config

    import keras_bit
    from keras_bit.tuning.study import UntrainableRuleError
    from keras_bit.tuning.study_folder import PAGE_FILE

    config.DEBUG = arguments.debug  # whether to print the traceback of each trial that fails
    _check(arguments)
    decisions = decisions_of(arguments)
    space = space_of(arguments.space, decisions)
    options = {**given(arguments, SETTINGS), "space": space}
    console = make_console()
    data = data_of(arguments, decisions)
    rule = decisions.get("rule")
    others = {name: value for name, value in decisions.items() if name != "rule"}
    paths = [*paths_of(decisions), arguments.output]
    try:
        with (
            _processes(arguments, others) as overwrite,
            _shown(console, arguments, rule, paths),
            _heeded_signals() as callback,
        ):
            result = keras_bit.search(
                data,
                rule,
                output=arguments.output,
                overwrite=overwrite,
                callbacks=[callback],
                verbose=0,
                **options,
                **others,
            )
    except UntrainableRuleError as error:
        raise ValueError(error) from error
    if console.is_terminal:
        write(console, result.verdict)
    command = _next_command(arguments, decisions, result)
    write(console, f"Report: {pathlib.Path(arguments.output, PAGE_FILE)}\nTrain with it: {command}")


def _check(arguments):
    """Raises of what can be checked before the images are read."""
    from keras_bit.core.arguments import check_integer, check_positive_number
    from keras_bit.tuning.study_folder import check_search_output
    from keras_bit.tuning.tuners import ADDRESS_VARIABLE, check_role, role_in_search

    minimums = {"trials": 1, "repeats": 2, "keep": 0, "epochs": 1, "workers": 1}
    for name, minimum in minimums.items():
        check_integer(name, getattr(arguments, name), minimum)
    if arguments.hours is not None:
        check_positive_number("hours", arguments.hours)
    check_search_output(arguments.output, overwrite=False)
    check_outside(arguments.output, arguments.folder)
    check_writable("output", arguments.output)
    if is_started_by_chief():
        return
    role = role_in_search()
    check_role(role, arguments.output, arguments.overwrite)
    if role is not None and arguments.workers > 1:
        raise ValueError(
            "`workers` must be 1 where the processes of a search are started one by one. Received: "
            f"workers={arguments.workers} with {ADDRESS_VARIABLE}={os.environ[ADDRESS_VARIABLE]}."
        )


@contextlib.contextmanager
def _processes(arguments: argparse.Namespace, others: dict[str, Any]) -> Iterator[bool]:
    """Starts the workers, or makes this process one; yields whether it replaces what is there.

    Several workers share a cache of the images, in `others` from now on.
    """
    from keras_bit.tuning.tuners import chief_of

    output = pathlib.Path(arguments.output)
    if arguments.workers == 1:
        yield arguments.overwrite
        return
    others.setdefault("cache_dir", str(output / CACHE_FOLDER))
    if is_started_by_chief():
        stop_with_chief()
        yield False
        return
    from keras_bit.tuning.study_folder import WORKERS_FOLDER

    logs = output / WORKERS_FOLDER
    if arguments.overwrite:
        shutil.rmtree(logs, ignore_errors=True)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # GPUs are for the workers
    workers = Workers(arguments.argv, arguments.workers, logs)
    with workers, chief_of(workers):
        yield arguments.overwrite
    if not workers.failed:
        shutil.rmtree(logs, ignore_errors=True)
    shutil.rmtree(output / CACHE_FOLDER, ignore_errors=True)


@contextlib.contextmanager
def _shown(console, arguments, rule, paths):
    """Shows the search: on a terminal as a table, else as the lines that it announces."""
    from keras_bit.tuning.progress import ProgressReader
    from keras_bit.tuning.study_folder import STUDY_FILE

    if not console.is_terminal:
        with shown_messages(console, paths):
            yield
        return
    output = pathlib.Path(arguments.output)
    reader, file = ProgressReader(output), output / STUDY_FILE
    old = _identity(file) if arguments.overwrite and file.exists() else None

    def read():
        """The progress, but not of a search that is about to be replaced."""
        return reader.read() if file.exists() and _identity(file) != old else None

    names = {each.name: short for short, each in hyperparameters_of(rule).items()}

    def is_beside_table(message):
        return not message.startswith(("Trial ", "The outcome is "))

    with live_table(console, read, names), shown_messages(console, paths, is_beside_table):
        yield


def _identity(file):
    found = file.stat()
    return found.st_ino, found.st_mtime_ns  # A new file may get the number of one removed before.


@contextlib.contextmanager
def _heeded_signals() -> Iterator[Any]:
    """Yields a callback that stops a search which Ctrl-C or SIGTERM has not stopped.

    Between trials Python may be in a `__del__` of the last model, where an exception is lost.
    """
    import keras

    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(each, frame):
        received.append(each)
        previous[each](each, frame)

    def stop(logs):
        for each in received:
            previous[each](each, None)

    for each in (signal.SIGINT, signal.SIGTERM):
        if callable(handler := signal.getsignal(each)):
            previous[each] = handler
            signal.signal(each, note)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if received else hook(lost)
    try:
        yield keras.callbacks.LambdaCallback(on_train_begin=stop)
    finally:
        sys.unraisablehook = hook
        for replaced, handler in previous.items():
            signal.signal(replaced, handler)


def _next_command(arguments, decisions, result):
    """The command that trains with the outcome, its data and its network those of the search."""
    from keras_bit.tuning.study_folder import BEST_FILE

    values = given(arguments, DATA_OPTIONS)
    for name in BESIDE_RULE:
        # A trial's own value may be that of the command without the option.
        is_decided = name in result.decisions or name in result.best.values
        if name in decisions and not is_decided:
            values[name] = decisions[name]
    if decisions.get("micro_batch_size") == "auto":  # On other devices it is another number.
        values["micro_batch_size"] = "auto"
    options = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(option)
        elif value is not False:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            options += [option, text]
    rule = ["--rule", str(pathlib.Path(arguments.output, BEST_FILE))]
    return shlex.join(["keras-bit", "fine-tune", *source_of(arguments), *rule, *options])


def _kept(arguments):
    """What an interrupted search has kept."""
    from keras_bit.tuning.progress import ProgressReader

    progress = ProgressReader(pathlib.Path(arguments.output)).read()
    if progress is None:
        return "nothing was kept"
    trials = sum(trial.status != "running" for trial in progress.trials)
    repeats = sum(map(len, progress.repeats.values()))
    again = f", further runs: {repeats}" if repeats else ""
    changed = " without --overwrite" if arguments.overwrite else ""
    return f"trials done: {trials}{again}; the same command{changed} resumes"
