import contextlib
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

import keras_bit.exporters
from keras_bit.cli.export import FORMAT_NAMES
from keras_bit.cli.main import main
from keras_bit.evaluation.saved_run import SavedRun
from keras_bit.exporters.formats import FORMATS
from tests.cli.test_parser import error_of

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def seen(monkeypatch):
    """What the command calls `keras_bit.exporters.export` with, which writes nothing."""
    calls = {}

    class Result(types.SimpleNamespace):
        def __str__(self):
            return "onnx\n  one image  3.1 ms  Keras 9.3 ms"

    def export(source, path, format, **options):
        calls.update(options, source=source, path=path, format=format)
        return Result(labels_file=None)

    monkeypatch.setattr(keras_bit.exporters, "export", export)
    monkeypatch.setattr(SavedRun, "open", lambda *arguments: None)
    return calls


def test_the_file_is_written_to_the_run(seen, tmp_path, capsys):
    assert main(["export", str(tmp_path), "--format", "onnx"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[1].split() == "one image 3.1 ms Keras 9.3 ms".split()
    )
    assert (seen["source"], seen["path"]) == (tmp_path, f"{tmp_path}/model.onnx")
    assert seen["data"] is None and "quantize" not in seen
    assert main(["export", str(tmp_path / "model.keras")]) == 0
    assert (seen["format"], seen["path"]) == ("tf_saved_model", f"{tmp_path}/model")


def test_options_reach_the_function(seen, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / name / f"{index}.png")
    options = "--format litert --output out.tflite --image-size 480x640 --input float32"
    options += " --outputs logits --quantize int8 --min-agreement 0.5"
    assert main(["export", "run", str(tmp_path), *options.split()]) == 0
    assert seen["data"].label_names == ("cat", "dog") and seen["path"] == "out.tflite"
    expected = ((480, 640), "float32", "logits", "int8", 0.5)
    names = ("image_size", "input", "outputs", "quantize", "min_agreement")
    assert tuple(seen[name] for name in names) == expected
    assert main(["export", "run", "--image-size", "64"]) == 0 and seen["image_size"] == 64


@pytest.mark.parametrize("size", ["64x", "0", "1x2x3", "64,64", "-3"])
def test_a_wrong_size_is_one_clear_error(size, capsys):
    line = error_of(["export", "run", f"--image-size={size}"], capsys)
    assert line.startswith("`--image-size` must be a number of pixels, or height and width")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format", "onnx", "--quantize", "int8"], "`FOLDER` must be given"),
        (["--seed", "3"], "`FOLDER` must be given"),
        (["--min-agreement", "0.5"], "`--min-agreement` must be omitted without `--quantize`"),
        (["--quantize", "dynamic"], "`--quantize` must be None with --format 'tf_saved_model'"),
        (["--output", "model.onnx/"], "`RUN` must be the output folder of a run"),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments, message, tmp_path, capsys, monkeypatch):
    if "RUN" not in message:
        monkeypatch.setattr(SavedRun, "open", lambda *arguments: None)
    with contextlib.suppress(SystemExit):  # of the parser
        assert main(["export", str(tmp_path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line, line


def test_a_wrong_output_is_called_by_its_option(tmp_path, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise ValueError("`path` must end with .onnx. Received: path=x.tflite")

    monkeypatch.setattr(SavedRun, "open", lambda *arguments: None)
    monkeypatch.setattr("keras_bit.exporters.export", refuse)
    assert main(["export", str(tmp_path), "--format", "onnx", "--output", "x.tflite"]) == 2
    line = "`--output` must end with .onnx. Received: --output x.tflite"
    assert line in capsys.readouterr().err


def test_the_command_knows_all_formats():
    assert set(FORMAT_NAMES) == set(FORMATS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipped")
def test_a_run_is_exported(whole_run, photos, tmp_path, capsys):
    path = tmp_path / "model"
    assert main(["export", str(whole_run.output), str(photos), "--output", str(path)]) == 0
    out = capsys.readouterr().out
    assert "same class" in out and "accuracy" in out and str(path) in out
    assert (path / "saved_model.pb").is_file() and pathlib.Path(f"{path}.labels.json").is_file()
