"""What runs an example, and photographs of cats and dogs for it."""

import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

import keras_bit
from tests.processes import ROOT, run_python

FOLDER = ROOT / "keras_bit" / "examples"
UPDATES, BATCH_SIZE = 20, 16
_make_rule = keras_bit.HyperRule.__init__


def short_rule(rule, image_size, dataset_size, batch_size=BATCH_SIZE, **arguments):
    """Stands in for `HyperRule.__init__`: rules of few updates and small batches."""
    arguments["schedule_length"] = arguments.get("schedule_length") or UPDATES
    _make_rule(rule, image_size, dataset_size, min(batch_size, BATCH_SIZE), **arguments)


def execute(name, **constants):
    """Runs an example, perhaps with constants changed as in a copy, and returns its names."""
    file = FOLDER / f"{name}.py"
    code = file.read_text()
    for constant, value in constants.items():
        code, count = re.subn(rf"(?m)^{constant} = .*$", f"{constant} = {value!r}", code)
        assert count == 1
    names = {"__name__": "__main__"}
    exec(compile(code, file, "exec"), names)
    return types.SimpleNamespace(**names)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs an example with arguments in a folder of its own, under rules of few updates."""
    monkeypatch.setattr(keras_bit.HyperRule, "__init__", short_rule)
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments, **constants):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return execute(name, **constants)

    return run


CHILD = """
import functools, sys
import keras_bit
from tests.scripts.conftest import execute, short_rule
updates = int(sys.argv.pop(1))
keras_bit.HyperRule.__init__ = functools.partialmethod(short_rule, schedule_length=updates)
names = execute(sys.argv.pop(1))
images, *_ = next(iter(names.train))
print(len(images), "images,", len(names.model.weights[0].value.devices()), "devices")
"""


def run_in_child(updates, name, *arguments, **environment):
    """Runs an example with Keras on JAX in another process; returns what `run_python` does.

    Its last line says how many images of a batch it gets, and how many devices share the model.
    """
    arguments = [str(argument) for argument in (updates, name, *arguments)]
    return run_python(
        "-c", CHILD, *arguments, PYTHONPATH=str(ROOT), KERAS_BACKEND="jax", **environment
    )


def photograph(label, rng, size=(40, 48)):
    """Noise, reddish for cats, of class 0, and bluish for dogs, of class 1."""
    pixels = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
    pixels[..., 2 * label] += 180
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """A folder of such photographs, and beside it `pets.csv` with their labels."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    rng = np.random.default_rng(0)
    rows = ["file,tags"]
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            photograph(label, rng).save(folder / name / f"{number}.png")
            rows.append(f"pets/{name}/{number}.png,{name}|{('furry', 'furry|young')[number % 2]}")
    folder.with_suffix(".csv").write_text("\n".join(rows))
    return folder
