"""Measures what this package gains on the machine at hand, and writes a page with a picture.

    python -m benchmarks.headline
    KERAS_BACKEND=jax python -m benchmarks.headline --output jax.md
    python -m benchmarks.headline --small

R50x1 at 224 px on the GPU that Keras sees, else on the CPU: a training step and inference, the
first step of a program and its memory, beside those of the peers that are installed. Every figure
is of a new process, and the processes are interleaved. On two cores it takes some 40 minutes; the
page is written after each work, so that an interruption leaves what was measured.
"""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

from benchmarks.harness.processes import ROOT

PAGE = os.path.join(".benchmarks", "headline.md")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="PAGE", default=PAGE, help=f"default: {PAGE}")
    parser.add_argument("--rounds", type=int, metavar="N", help="processes of each; default: 3")
    parser.add_argument("--authors", metavar="FOLDER", help="a checkout of their repository")
    parser.add_argument(
        "--small", action="store_true", help="a training step of a tiny network, to try it"
    )
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"`--rounds` must be at least 1. Received: {options.rounds}")
    if options.authors:
        # Before the registry is imported, and for the processes that are started.
        os.environ["KERAS_BIT_AUTHORS"] = os.path.abspath(options.authors)
    try:
        check_page(pathlib.Path(options.output))
    except (ValueError, OSError) as error:
        parser.error(f"`--output` {error}")
    machine = ask_for_machine()
    if machine["kind"] == "gpu" and machine["backend"] == "torch":
        sys.exit(
            "On a GPU Keras is measured on JAX or TensorFlow: set KERAS_BACKEND to one of them."
        )
    table = measure_and_write(options, machine)
    print("\n".join(["", *table, "", f"Page: {options.output}"]))


def check_page(path):
    """Makes the folder of a page, and sees that a file can be written there."""
    if path.suffix != ".md" or path.is_dir():
        raise ValueError(f"must be a file whose name ends in .md. Received: {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(
            f"must lie in a folder that can be written to. Received: {path} ({error})"
        ) from error


def measure_and_write(options, machine):
    """Writes the page after each work; returns the lines of its first table."""
    from benchmarks.headline.measure import choose_works, measure_works
    from benchmarks.headline.page import write_page

    rounds = options.rounds or (1 if options.small else 3)
    about = {
        "title": "A tiny network" if options.small else "R50x1 at 224 px",
        "command": command(options),
        "date": datetime.date.today().isoformat(),
        "rounds": rounds,
        "small": options.small,
    }
    table = None
    for rows, missing in measure_works(choose_works(machine, options.small), rounds):
        if rows:
            table = write_page(options.output, rows, missing, machine, about)
    if table is None:
        reasons = [f"{name}: {reason}" for name, reason in missing.items()]
        sys.exit("\n".join(["Nothing of keras_bit was measured, and no page written.", *reasons]))
    return table


def ask_for_machine():
    """Returns what `find_machine` finds in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.harness.machine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"Keras could not be started:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def command(options):
    """The command as others would type it."""
    parts = ["python", "-m", "benchmarks.headline"]
    parts += ["--small"] * options.small
    parts += ["--rounds", str(options.rounds)] if options.rounds else []
    parts += ["--authors", "FOLDER"] if options.authors else []
    backend = os.environ.get("KERAS_BACKEND")
    return (f"KERAS_BACKEND={backend} " if backend else "") + shlex.join(parts)


if __name__ == "__main__":
    main()
