import ast
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

import keras_bit

pytestmark = pytest.mark.tensorflow

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS)
def test_the_examples_run(code, tmp_path, monkeypatch):
    """As printed, but for the size of the network and the length of the schedule."""
    rows = ["file,tags"]
    for label, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((40, 50, 3), color, "uint8") + np.uint8(number)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
            rows.append(f"photos/{label}/{number}.png,{label}|{('even', 'odd')[number % 2]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))

    def small(name, load_weights=True, **options):
        return keras_bit.BiTBackbone(depth=(1, 1, 1, 1), width=0.125, **options)

    class ShortRule(keras_bit.HyperRule):
        def __init__(self, *sizes, **arguments):
            super().__init__(*sizes, **{**arguments, "schedule_length": 10, "crop_size": 32})

    monkeypatch.setattr(keras_bit.BiTBackbone, "from_preset", small)
    monkeypatch.setattr(keras_bit, "HyperRule", ShortRule)
    monkeypatch.setattr("keras_bit.training.resolve.HyperRule", ShortRule)
    monkeypatch.chdir(tmp_path)
    assert len([part for part in ast.parse(code).body if not isinstance(part, ast.Import)]) <= 10
    exec(code, {})
    loaded = keras_bit.BiTBackbone.from_weights("photos.keras")
    assert (loaded.depth, loaded.width) == ((1, 1, 1, 1), 0.125)


def test_there_is_an_example():
    assert BLOCKS


@pytest.mark.parametrize("name", keras_bit.__all__)
def test_every_public_name_is_mentioned(name):
    if name not in ("ImageDataset", "presets"):
        assert f"`{name}" in README
