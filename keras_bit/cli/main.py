"""The command `keras-bit`: its parser, and what becomes of errors.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

import argparse
import functools
import importlib.util
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence

from keras_bit import __version__
from keras_bit.cli import (
    demo,
    download,
    evaluate,
    export,
    fine_tune,
    plan,
    predict,
    presets,
    pretrain,
    search,
    serve,
)
from keras_bit.cli.console import complain, silence
from keras_bit.cli.parser import FAILED, Parser
from keras_bit.core.onednn import enable_onednn

COMMANDS = (
    *(fine_tune, evaluate, predict, serve, export),
    *(plan, search, presets, download, pretrain, demo),
)
INTERRUPTED = 130  # as shells report a process that SIGINT ended
TERMINATED = 143  # or SIGTERM
PIPE_CLOSED = 141  # or SIGPIPE
# What to try where the device is out of memory, by an option of the command: the first that it has.
_SAVES_MEMORY = {
    "--remat": " Try --micro-batch-size auto, --remat, or a smaller --crop-size.",
    "--batch-size": " Try a smaller --batch-size.",
}
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError, ArithmeticError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit code: 0, 1 where `predict` could not read an image, 2 for an error, 130 after an
        interruption, 143 after SIGTERM, 141 where nobody reads the output any more.
    """
    _open_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(argv, argparse.Namespace(argv=argv))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that the terminal's encoding cannot show.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = functools.partial(_show_warning, arguments.parser)
        # These speak to those who write code, not to those who run it.
        warnings.simplefilter("ignore", DeprecationWarning)
        previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            enable_onednn()
            if not arguments.debug:
                _import_quietly(arguments.libraries)
            with silence(arguments.silenced):
                code = arguments.run(arguments) or 0
            sys.stdout.flush()  # here, and not at Python's end, errors of it are caught
            return code
        except (KeyboardInterrupt, Terminated) as stop:
            complain("; ".join(["stopped", *_kept(arguments)]))
            return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
            # Else Python would complain at its end, when it writes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except (*USER_ERRORS, *_device_errors()) as error:
            message = _message(error, arguments.parser)
            if arguments.debug or message is None:
                raise
            complain(f"error: {arguments.parser.with_options(message)}")
            return _end_alone(FAILED)
        finally:
            signal.signal(signal.SIGTERM, previous)


class Terminated(BaseException):
    """SIGTERM has arrived."""


def make_parser() -> Parser:
    """Returns the parser of all commands."""
    parser = Parser(
        prog="keras-bit", description="Fine-tunes BigTransfer (BiT) on a folder of photographs."
    )
    parser.add_argument("--version", action="version", version=f"keras-bit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _open_streams():
    """Leads output nowhere that the shell has closed, as with `>&-`."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _import_quietly(libraries):
    """Imports `libraries` without the messages of TensorFlow's start."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow 2.19 and later do not heed the variable before they have looked for GPUs.
    error_output = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        for library in libraries:
            if importlib.util.find_spec(library):  # TensorFlow need not be there on JAX
                importlib.import_module(library)
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.config.list_physical_devices()
    finally:
        os.dup2(error_output, 2)
        os.close(error_output)
        os.close(nowhere)


def _terminate(number, frame):
    raise Terminated


def _kept(arguments):
    """What the interrupted command has kept, as far as there is something to say of it."""
    return [arguments.kept(arguments)] if arguments.kept else []


def _device_errors():
    """What TensorFlow and JAX raise where a device is out of memory, among other troubles."""
    if tensorflow := sys.modules.get("tensorflow"):
        return RuntimeError, tensorflow.errors.ResourceExhaustedError
    return (RuntimeError,)


def _message(error, parser):
    """What to tell of an error in one line; `None` where it may be a bug."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, USER_ERRORS):
        return re.sub(r"\s*\n\s*", " ", str(error).strip()) or type(error).__name__
    from keras_bit.core.device import is_out_of_memory

    if is_out_of_memory(error):
        known = (advice for option, advice in _SAVES_MEMORY.items() if parser.has_option(option))
        return f"The device is out of memory.{next(known, '')}"
    return None


def _end_alone(code):
    """Returns the exit code; one of several processes ends here, as JAX would wait for the others.

    Those end when they miss this one.
    """
    distribution = sys.modules.get("keras_bit.core.distribution")
    if distribution and distribution.processes().count > 1:
        os._exit(code)
    return code


def _show_warning(parser, message, category, filename, lineno, file=None, line=None):
    """Warnings as one readable line, in place of `warnings.showwarning`."""
    complain(f"warning: {parser.with_options(str(message))}")
