"""`keras-bit serve RUN`."""

import argparse
from typing import Any

from keras_bit.cli.console import make_console, write
from keras_bit.cli.options import add_command, add_quiet, add_run, integer, path

HOST, PORT = "127.0.0.1", 7860


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "serve RUN",
        run,
        "Try a classifier on a page in the browser",
        "keras-bit serve photos-bit",
        ("keras", "tensorflow"),
        f"Open http://{HOST}:{PORT} and drop an image on the page. Programs send one to /predict "
        f"and get JSON: curl --data-binary @IMAGE http://{HOST}:{PORT}/predict",
    )
    add_run(parser)
    text = f"address to listen at (default: {HOST}, for this machine alone)"
    parser.add_argument("--host", type=path, default=HOST, metavar="ADDRESS", help=text)
    text = f"port to listen at; 0 takes any that is free (default: {PORT})"
    parser.add_argument("--port", type=port, default=PORT, metavar="N", help=text)
    add_quiet(parser, prints_result=True)


def run(arguments: argparse.Namespace) -> None:
    """Serves until it is stopped."""
    from keras_bit.evaluation.saved_run import SavedRun

    saved = SavedRun.open(arguments.run_path, "RUN")
    _check_gradio()
    from keras_bit.serving.server import serve

    def say(url):
        status.stop()
        write(make_console(), f"Serving {arguments.run_path} at {url} until Ctrl-C.")

    with make_console(stderr=True).status("Loading the model") as status:
        serve(saved, arguments.host, arguments.port, say)


def port(text: str) -> int:
    parsed = integer(text)
    if not 0 <= parsed < 2**16:
        raise argparse.ArgumentTypeError(f"must be from 0 to {2**16 - 1}. Received: {text}")
    return parsed


def _check_gradio():
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(
            '`keras-bit serve` needs Gradio: `pip install "keras_bit[serve]"`.'
        ) from error
