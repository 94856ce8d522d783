import pytest

from keras_bit import __version__
from keras_bit.cli import presets
from keras_bit.cli.main import main, make_parser

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:Skipped")]

COMMANDS = ("fine-tune", "predict", "plan", "presets", "download", "pretrain", "demo")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["plan", "no folder"], "`path` must be a folder that exists. Received: path=no folder"),
        (["plan", "PHOTOS", "--batch-size", "0"], "Received: batch_size=0"),
        (["plan", "PHOTOS", "--micro-batch-size", "7"], "must divide `batch_size`"),
        (["plan", "PHOTOS", "--validation-split", "1"], "`validation_split`"),
        (["plan", "PHOTOS", "--examples-per-class", "99"], "`examples_per_class`"),
        (["plan", "PHOTOS", "--min-edge", "50"], "min_edge=50"),
        (
            ["fine-tune", "PHOTOS", "--from-scratch", "--preset", "m-r50x1"],
            "`--from-scratch` must not be combined with `--preset`",
        ),
        (
            ["fine-tune", "PHOTOS", "--preset", "m-r50x1", "--width", "2"],
            "`preset` is given, which decides them",
        ),
        (["fine-tune", "no folder", "--preset", "m-r50x7"], "Did you mean 'm-r50x"),
        (["plan", "no folder", "--micro-batch-size", "7"], "must divide `batch_size`"),
        (["plan", "no folder", "--depth", "49"], "`depth`"),
        (["plan", "no folder", "--dtype", "float23"], "`dtype`"),
        (["plan", "no folder", "--steps-per-epoch", "0"], "`steps_per_epoch`"),
        (["pretrain", "--families", "scenes,clouds"], "`families` must be different names"),
        (["pretrain", "--batch-size", "7"], "`batch_size` must be a multiple"),
    ],
)
def test_errors_are_one_line_and_code_2(photos, capsys, arguments, message):
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("keras-bit: error: ") and message in error
    assert "Traceback" not in captured.err


def test_debug_shows_where_an_error_arose():
    with pytest.raises(FileNotFoundError):
        main(["plan", "no folder", "--debug"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["fine-tune"],
        ["predict", "model.keras"],
        ["predict", "model.keras", "image.png", "--top", "0"],
        ["fine-tune", "photos", "--depth", "many"],
    ],
)
def test_wrong_usage_is_code_2(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: keras-bit" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_is_accepted(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    example = " ".join(out.split("Example: ")[1].split())
    assert example.startswith(f"keras-bit {command}")
    assert make_parser().parse_args(example.split()[1:]).run


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"keras-bit {__version__}\n"


def raising(error):
    def run(arguments):
        raise error

    return run


def test_a_device_out_of_memory_gets_advice(monkeypatch, capsys):
    import tensorflow as tf

    tensorflow_error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    for error in (tensorflow_error, RuntimeError("RESOURCE_EXHAUSTED: Out of memory")):
        monkeypatch.setattr(presets, "run", raising(error))
        assert main(["presets"]) == 2
        assert "--micro-batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_bug_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr(presets, "run", raising(error("a bug")))
    with pytest.raises(error):
        main(["presets"])
