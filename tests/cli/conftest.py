"""A folder of photographs and one whole run, which the commands share."""

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

import keras_bit

TINY = ("--depth", "1,1,1,1", "--width", "0.25", "--batch-size", "16", "--crop-size", "32")
COLORS = ("blue [b]", "green", "red")


def photograph(channel, rng):
    image = rng.integers(0, 120, (40, 36, 3)).astype(np.uint8)
    image[4:36, 4:32, channel] = 255
    return Image.fromarray(image)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """As in a pipe, whatever the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of photographs of squares, with one broken file; class names try rich's markup."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in COLORS:
        (folder / name).mkdir()
        for index in range(20):
            picture = photograph(("red", "green", "blue [b]").index(name), rng)
            picture.save(folder / name / f"{index}.png")
    (folder / "blue [b]" / "broken.jpg").write_text("no picture")
    return folder


@pytest.fixture
def fake_fine_tune(monkeypatch, tmp_path):
    """A `keras_bit.fine_tune` that trains nothing; the dictionary of what it was called with."""
    seen = {}

    def fine_tune(data, **arguments):
        seen.update(arguments, data=data)
        metrics = {"accuracy": 0.5, "validation_images": 6, "best_update": 1}
        metrics["training_seconds"] = 1.0
        return types.SimpleNamespace(metrics=metrics, output=tmp_path)

    monkeypatch.setattr(keras_bit, "fine_tune", fine_tune)
    return seen


def start(arguments, **environment):
    """The command in a process of its own, its output no terminal."""
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | environment
    return subprocess.Popen(
        [sys.executable, "-m", "keras_bit", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def impatient():
    """Ends a test that hangs."""

    def give_up(number, frame):
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def in_terminal(arguments, columns):
    """What the command shows in a terminal of this width, and its exit code."""
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    here, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "keras_bit", *map(str, arguments)]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    shown = b""
    with subprocess.Popen(command, env=environment, **streams) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # Linux's way to say that nothing more comes
            while part := os.read(here, 4096):
                shown += part
    os.close(here)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return process.returncode, re.split(r"[\r\n]+", text)


@pytest.fixture(scope="session")
def whole_run(photos, tmp_path_factory):
    """`keras-bit fine-tune` from the folder to the classifier, in a narrow window."""
    output = tmp_path_factory.mktemp("cli") / "output"
    settings = ("--schedule-length", "30", "--learning-rate", "0.02", "--steps-per-epoch", "8")
    arguments = ("fine-tune", photos, *TINY, *settings, "--output", output)
    with start(arguments, COLUMNS="40") as process:
        out, error = process.communicate(timeout=600)
    return types.SimpleNamespace(output=output, code=process.returncode, out=out, error=error)
