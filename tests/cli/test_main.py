import itertools
import os
import subprocess
import sys
import textwrap

import pytest
from PIL import Image

from keras_bit import __version__
from keras_bit.cli import evaluate, fine_tune, presets
from keras_bit.cli.main import main, make_parser
from keras_bit.weights import read_weights
from tests.image_files import encoded_image
from tests.processes import run_python
from tests.saved_files import RUN

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore:Skipped")]

COMMANDS = ("fine-tune", "predict", "serve", "plan", "presets", "download", "pretrain", "demo")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["plan", "no folder"], "`FOLDER` must be a folder that exists. Received: FOLDER no folde"),
        (["plan", "PHOTOS", "--batch-size", "0"], "Received: --batch-size 0"),
        (["plan", "PHOTOS", "--micro-batch-size", "7"], "must divide `--batch-size`"),
        (["plan", "PHOTOS", "--validation-split", "1"], "`--validation-split`"),
        (["plan", "PHOTOS", "--examples-per-class", "99"], "`--examples-per-class`"),
        (["plan", "PHOTOS", "--min-edge", "50"], "--min-edge 50"),
        (
            ["fine-tune", "PHOTOS", "--from-scratch", "--preset", "m-r50x1"],
            "`--from-scratch` must not be combined with `--preset`",
        ),
        (
            ["fine-tune", "PHOTOS", "--preset", "m-r50x1", "--width", "2"],
            "`--preset` is given, which decides them",
        ),
        (["fine-tune", "no folder", "--preset", "m-r50"], "Did you mean 'm-r50x1'"),
        (["fine-tune", "no folder", "--preset", "m-r50x7"], "`--preset` must be one of"),
        (["download", "nope"], "`NAME` must be one of keras_bit.presets(). Received: NAME 'nope'"),
        (["predict", "no run", "photos.csv"], "photos.csv, a table. `--csv` chooses"),
        (["plan", "no folder", "--micro-batch-size", "7"], "must divide `--batch-size`"),
        (["plan", "no folder", "--depth", "49"], "`--depth`"),
        (["plan", "no folder", "--dtype", "float23"], "`--dtype`"),
        (["plan", "no folder", "--steps-per-epoch", "0"], "`--steps-per-epoch`"),
        (["pretrain", "--families", "scenes,clouds"], "`--families` must be different names"),
        (["pretrain", "--batch-size", "7"], "`--batch-size` must be a multiple"),
    ],
)
def test_errors_are_one_line_and_code_2(photos, capsys, arguments, message):
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("keras-bit: error: ") and message in error
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["plan", "fine-tune"])
def test_a_pipe_or_device_is_no_file_of_weights(impatient, tmp_path, capsys, command):
    os.mkfifo(tmp_path / "pipe.npz")
    for source in (tmp_path / "pipe.npz", "/dev/zero"):
        assert main([command, "no folder", "--preset", str(source)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("keras-bit: error: `source` must be an undamaged file of weights")
        assert f"Received: {source}, which is not a regular file." in error
    with pytest.raises(ValueError, match="`source` must be.*Received: source=''"):
        read_weights("")


@pytest.mark.parametrize("command", ["fine-tune", "plan"])
def test_a_cache_that_cannot_be_written_is_refused_at_once(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([command, "no folder", "--cache-dir", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert (
        "error: `--cache-dir` must be a folder that can be written to. Received: --cache-" in error
    )


@pytest.mark.parametrize("command", ["fine-tune", "demo", "pretrain"])
def test_an_output_that_cannot_be_written_is_refused_at_once(
    command, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "file"
    file.touch()
    arguments = [command, *(["no folder"] if command == "fine-tune" else []), "--output"]
    for output in (file, file / "below" / "it"):
        assert main([*arguments, str(output)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert "`--output` must be a folder" in error and f"Received: --output {output}" in error
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert main([*arguments, str(tmp_path / "new")]) == 2
    assert f"and {tmp_path} cannot be written to." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_system_names_the_file(photos, monkeypatch, capsys):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["plan", str(photos)]) == 2
    assert capsys.readouterr().err == f"keras-bit: error: Permission denied: {photos}\n"


@pytest.mark.slow
def test_output_that_nobody_reads_any_more_is_no_error():
    code = "import sys; from keras_bit.cli import download, main; "
    code += "download.run = lambda _: print('line', flush=True) or sys.stdin.read() or print(1); "
    code += "sys.exit(main(['download', 'x']))"
    command = [sys.executable, "-c", code]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, env=buffered, **streams) as process:
        assert process.stdout.readline().strip() == b"line"
        process.stdout.close()
        process.stdin.close()
        error = process.stderr.read()
    assert process.returncode == 141
    assert b"pipe" not in error.lower() and b"Traceback" not in error


def test_an_error_of_many_lines_is_shown_in_one(monkeypatch, capsys):
    monkeypatch.setattr(presets, "run", raising(ValueError("\nfirst:\n\n  second\n")))
    assert main(["presets"]) == 2
    assert capsys.readouterr().err == "keras-bit: error: first: second\n"


def test_debug_shows_where_an_error_arose():
    with pytest.raises(FileNotFoundError):
        main(["plan", "no folder", "--debug"])


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


@pytest.mark.skipif(os.name == "nt", reason="shells of POSIX")
@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_output_that_the_shell_has_closed_goes_nowhere(closed):
    closing = " ".join(f"{number}>&-" for number in closed.split())
    command = f'"{sys.executable}" -m keras_bit presets {closing}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert ("f-r14x0.5" in done.stdout) == ("1" not in closed)


def raising(error):
    def run(arguments):
        raise error

    return run


def test_a_device_out_of_memory_gets_advice(monkeypatch, capsys):
    import tensorflow as tf

    tensorflow_error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    for error in (tensorflow_error, RuntimeError("RESOURCE_EXHAUSTED: Out of memory")):
        for command, words, advice in (
            (fine_tune, ["fine-tune", "photos"], " Try --micro-batch-size auto, --remat, or a"),
            (evaluate, ["evaluate", "run", "photos"], " Try a smaller --batch-size.\n"),
            (presets, ["presets"], "of memory.\n"),
        ):
            monkeypatch.setattr(command, "run", raising(error))
            assert main(words) == 2
            assert advice in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_needs_no_tensorflow(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    script = """
        import sys
        sys.modules["tensorflow"] = None  # as if it were not there
        from keras_bit.cli.main import main
        sys.exit(main(sys.argv[1:]))
    """
    code = textwrap.dedent(script)
    done = run_python("-c", code, "predict", RUN, tmp_path / "red.png", KERAS_BACKEND="jax")
    assert done.returncode == 0 and "red.png" in done.stdout, done.stderr


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_bug_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr(presets, "run", raising(error("a bug")))
    with pytest.raises(error):
        main(["presets"])


@pytest.mark.filterwarnings("default:.*are damaged")
def test_warnings_name_the_options(tmp_path, capsys):
    for name, index in itertools.product(("a", "b"), range(3)):
        path = tmp_path / "photos" / name / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(index, (64, 64), "JPEG"))
    path.write_bytes(path.read_bytes()[:-40])
    options = "--schedule-length 1 --crop-size 32 --batch-size 2".split()
    folders = [str(tmp_path / "photos"), "--output", str(tmp_path / "run")]
    assert main(["fine-tune", *folders, *options]) == 0
    assert "but for `--damaged keep`" in capsys.readouterr().err
