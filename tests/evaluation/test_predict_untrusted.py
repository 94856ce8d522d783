"""Models of runs that are damaged, of another kind, or made to do harm."""

import contextlib
import importlib
import json
import pickle
import re
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_bit import BiTBackbone, predict_files
from tests.saved_files import needs_their_keras

pytestmark = pytest.mark.tensorflow

TINY = {"depth": (1, 1, 1, 1), "width": 0.0625}


class Trap:
    """Leaves a mark where its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_model(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(run, reason):
    with pytest.raises(ValueError) as error:
        predict_files(run, run / "image.png")
    message = str(error.value)
    assert message.startswith("`run` must hold a model that keras_bit saved. Received: ")
    assert f"{run / 'model.keras'}, which is damaged or of another kind: " in message
    assert re.search(reason, message) and "\n" not in message, message


def test_a_lambda_layer_is_not_run(run, mark):
    path = str(mark)
    touch = lambda x: (open(path, "w").close(), x)[1]  # noqa: E731
    model = functional((32, 32, 3), keras.layers.Flatten(), keras.layers.Lambda(touch))
    model.save(run / "model.keras")
    assert mark.exists()
    mark.unlink()
    refused(run, "`Lambda` layer.*risk of arbitrary code execution")
    assert not mark.exists()
    keras.models.load_model(run / "model.keras", safe_mode=False)(np.zeros((1, 32, 32, 3)))
    assert mark.exists()


def identity(x):
    return x


def test_the_reason_is_that_of_the_layer_and_not_of_the_model_around_it(run):
    layers = keras.layers.Flatten(), keras.layers.Lambda(identity)
    functional((32, 32, 3), *layers).save(run / "model.keras")
    refused(run, "another kind: Could not locate function 'identity'")


@needs_their_keras
@pytest.mark.parametrize(
    "module, name", [("harmful", "Harm"), ("os", "system"), ("pickle", "loads"), (None, "Harm")]
)
def test_no_other_module_is_imported(run, mark, tmp_path, monkeypatch, module, name):
    (tmp_path / "harmful.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Harm: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = members(run / "model.keras")
    config = {"module": module, "class_name": name, "registered_name": None, "config": "touch x"}
    write_model(run / "model.keras", {**parts, "config.json": json.dumps(config)})
    refused(run, name)
    assert not mark.exists() and "harmful" not in sys.modules
    importlib.import_module("harmful")
    assert mark.exists() and sys.modules.pop("harmful")


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", "metadata.json"])
def test_a_pickle_in_a_model_is_not_run(run, mark, member):
    parts = {**members(run / "model.keras"), member: pickle.dumps(Trap(mark))}
    write_model(run / "model.keras", parts)
    with contextlib.suppress(ValueError):
        predict_files(run, run / "image.png")
    assert not mark.exists()
    pickle.loads(parts[member])
    assert mark.exists()


@pytest.mark.parametrize("member", ["../mark", "assets/../../mark", "/{folder}/mark", "assets/x"])
def test_members_of_a_model_are_written_nowhere(run, mark, member):
    member = member.format(folder=mark.parent)
    write_model(run / "model.keras", {**members(run / "model.keras"), member: b"content"})
    before = sorted(mark.parent.rglob("*"))
    with contextlib.suppress(ValueError):
        predict_files(run, run / "image.png")
    assert sorted(mark.parent.rglob("*")) == before


def functional(shape, *layers):
    images = keras.Input(shape)
    outputs = images
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(images, outputs)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: functional((32, 32, 3), keras.layers.Flatten()), "without a keras_bit.BiTB"),
        (lambda: functional((5,), keras.layers.Dense(3)), "without a keras_bit.BiTBackbone"),
        (lambda: functional((32, 32, 3), BiTBackbone(**TINY, pooling=None)), "not logits"),
        (lambda: functional((48, 48, 3), BiTBackbone(**TINY)), "48"),
    ],
)
def test_a_model_of_another_architecture_is_refused(run, make, reason):
    make().save(run / "model.keras")
    refused(run, reason)


@pytest.mark.parametrize("name", ["model.keras", "label_names.json", "rule.json"])
@pytest.mark.parametrize("path", ["", "model.keras"])
def test_a_file_that_is_there_is_never_called_missing(run, path, name):
    whole = (run / name).read_bytes()
    for content, fault in {
        b"": "is empty",
        bytes(1000): "is no zip file|of another kind",
        whole[: len(whole) // 2]: rf"is cut: {len(whole) // 2:,} bytes|of another kind",
        b"<html>": "is a web page",
    }.items():
        (run / name).write_bytes(content)
        with pytest.raises(ValueError, match=fault) as error:
            predict_files(run / path, [])  # before a model is loaded, or an image read
        message = str(error.value)
        assert message.startswith("`run` must ") and str(run / name) in message
        assert message.endswith("Copy the run again, or train again.") and "\n" not in message
        assert not re.search("missing|not found|not exist", message, re.IGNORECASE)


@pytest.mark.parametrize("error", [MemoryError("8 GB"), RuntimeError("RESOURCE_EXHAUSTED: 8 GB")])
def test_a_lack_of_memory_is_no_fault_of_the_model(run, monkeypatch, error):
    def load(*arguments, **options):
        raise error

    monkeypatch.setattr(keras.models, "load_model", load)
    with pytest.raises(type(error), match="8 GB") as raised:
        predict_files(run, run / "image.png")
    assert raised.value is error
