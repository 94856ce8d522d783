import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from keras_bit import BiTBackbone, HyperRule, __version__, cli, finetune, presets, training_memory
from keras_bit.weights.presets import EMBEDDED

pytestmark = pytest.mark.tensorflow

TINY = ("--depth", "1,1,1,1", "--width", "0.25", "--batch-size", "16", "--crop-size", "32")
COLOURS = ("blue [b]", "green", "red")
COMMANDS = ("fine-tune", "predict", "plan", "presets", "download", "pretrain", "demo")


def photograph(channel, rng):
    image = rng.integers(0, 120, (40, 36, 3)).astype(np.uint8)
    image[4:36, 4:32, channel] = 255
    return Image.fromarray(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photographs of squares, with one broken file; class names try rich's markup."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in COLOURS:
        (folder / name).mkdir()
        for index in range(20):
            picture = photograph(("red", "green", "blue [b]").index(name), rng)
            picture.save(folder / name / f"{index}.png")
    (folder / "blue [b]" / "broken.jpg").write_text("no picture")
    return folder


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


@pytest.fixture(scope="module")
def whole_run(photos, tmp_path_factory):
    """`keras-bit fine-tune` from the folder to the classifier, in a narrow window."""
    output = tmp_path_factory.mktemp("cli") / "output"
    settings = ("--schedule-length", "30", "--learning-rate", "0.02", "--steps-per-epoch", "8")
    arguments = ("fine-tune", photos, *TINY, *settings, "--output", output)
    with start(arguments, COLUMNS="40") as process:
        out, error = process.communicate(timeout=300)
    return types.SimpleNamespace(output=output, code=process.returncode, out=out, error=error)


def lines_without_paths(text, *paths):
    """Lines of `text`, less those that hold a path, which must not be broken up."""
    return [line for line in text.splitlines() if not any(str(path) in line for path in paths)]


def test_fine_tune_writes_the_run_and_says_how_it_went(whole_run):
    assert whole_run.code == 0, whole_run.error
    written = {path.name for path in whole_run.output.iterdir()}
    files = {"model.keras", "label_names.json", "rule.json", "history.csv", "metrics.json"}
    assert written == files | {"report.html", "report", "logs"}
    rows = (whole_run.output / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert re.findall(r"^update (\d+):", whole_run.out, re.MULTILINE) == ["8", "16", "24", "30"]
    accuracy = json.loads((whole_run.output / "metrics.json").read_text())["accuracy"]
    assert f"Accuracy {accuracy:.2%} on 6 validation" in whole_run.out
    assert "random weights" in " ".join(whole_run.out.split())


def test_fine_tune_is_readable_in_a_narrow_window_and_in_a_pipe(whole_run):
    assert max(map(len, whole_run.out.splitlines())) <= 40
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", whole_run.out + whole_run.error)


def test_fine_tune_reports_what_it_leaves_out_and_nothing_else_on_stderr(whole_run):
    (warning,) = whole_run.error.splitlines()
    assert warning.startswith("keras-bit: warning: ")
    assert "broken.jpg" in warning


def test_predict_names_the_classes_of_new_images(whole_run, photos, tmp_path, capsys):
    rng = np.random.default_rng(7)
    images = []
    for channel, name in enumerate(("red", "green", "blue [b]")):
        images.append(tmp_path / f"{name}.png")
        photograph(channel, rng).save(images[-1])
    assert cli.main(["predict", str(whole_run.output), *map(str, images), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["image"] for result in results] == list(map(str, images))
    for result, image in zip(results, images, strict=True):
        classes = [prediction["class"] for prediction in result["predictions"]]
        assert classes[0] == image.stem and set(classes) == set(COLOURS)
        shares = [prediction["probability"] for prediction in result["predictions"]]
        assert sum(shares) == pytest.approx(1) and shares == sorted(shares, reverse=True)


def test_predict_needs_the_model_s_folder_alone(whole_run, tmp_path, capsys, monkeypatch):
    for name in ("model.keras", "label_names.json", "rule.json"):
        shutil.copy(whole_run.output / name, tmp_path)
    photograph(1, np.random.default_rng(3)).save(tmp_path / "a [b] photograph.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["predict", "model.keras", "a [b] photograph.png", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    row = next(line for line in out.splitlines() if "%" in line)
    assert "green" in row and "a [b]" in out and "red" not in out


def test_predict_reports_unreadable_images_and_goes_on(whole_run, photos, tmp_path, capsys):
    broken = photos / "blue [b]" / "broken.jpg"
    missing = tmp_path / "missing.png"
    images = [broken, photos / "red" / "0.png", missing]
    assert cli.main(["predict", str(whole_run.output), *map(str, images)]) == 1
    captured = capsys.readouterr()
    assert "red" in captured.out and "broken" not in captured.out
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == [
        str(broken),
        str(missing),
    ]
    assert cli.main(["predict", str(whole_run.output), *map(str, images), "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert ["error" in result for result in results] == [True, False, True]


def test_predict_in_batches_gives_each_image_its_own_class(whole_run, photos, capsys, monkeypatch):
    monkeypatch.setattr(cli, "PREDICTION_BATCH", 2)
    images = [photos / name / "1.png" for name in COLOURS]
    images.insert(1, photos / "blue [b]" / "broken.jpg")
    cli.main(["predict", str(whole_run.output), *map(str, images), "--json", "--top", "1"])
    results = json.loads(capsys.readouterr().out)
    named = [result["predictions"][0]["class"] for result in results if "error" not in result]
    assert named == list(COLOURS)
    assert "error" in results[1]


def test_predict_without_a_model(tmp_path, capsys):
    assert cli.main(["predict", str(tmp_path), "image.png"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("keras-bit: error: `MODEL` must be") and str(tmp_path) in error


def test_an_output_folder_in_use_is_refused_before_the_images_are_read(whole_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole_run.output.rglob("*")}
    assert cli.main(["fine-tune", "no folder", "--output", str(whole_run.output)]) == 2
    error = capsys.readouterr().err
    assert "holds a run" in error and "overwrite" in error and len(error.splitlines()) == 1
    assert cli.main(["demo", "--output", str(whole_run.output)]) == 2
    assert {path: path.stat().st_mtime_ns for path in whole_run.output.rglob("*")} == before


def test_an_interrupted_run_stops_quietly_and_keeps_its_best_weights(photos, tmp_path):
    settings = ("--schedule-length", "100000", "--steps-per-epoch", "2")
    arguments = ("fine-tune", photos, *TINY, *settings, "--output", tmp_path / "output")
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith("update 4:"):
                process.send_signal(signal.SIGINT)
                break
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "keras-bit: stopped"
    assert "Traceback" not in error
    assert (tmp_path / "output" / "unfinished" / "best.weights.h5").is_file()


def test_plan_shows_data_rule_and_cache_without_training(photos, capsys):
    options = ("--batch-size", "32", "--micro-batch-size", "8", "--schedule-length", "50")
    sizes = ("--resize-edge", "100", "--crop-size", "80", "--no-random-flip", "--warmup")
    assert cli.main(["plan", str(photos), *options, *sizes]) == 0
    captured = capsys.readouterr()
    words = [line.split() for line in captured.out.splitlines()]
    assert ["blue", "[b]", "18", "2"] in words
    assert ["3", "classes", "54", "6"] in words
    rule = HyperRule(
        (40, 36),
        54,
        32,
        micro_batch_size=8,
        schedule_length=50,
        resize_edge=100,
        crop_size=80,
        random_flip=False,
        warmup=True,
    )
    assert str(rule) in captured.out
    assert "Cache of the images: 1.6 MB for training, 115.2 kB for validation" in captured.out
    assert "Left out: 1" in captured.out and "blue [b]/broken.jpg: " in captured.out


def test_plan_shows_the_memory_of_a_network_without_its_weights(photos, capsys):
    options = ("--preset", "m-r50x1", "--batch-size", "32", "--micro-batch-size", "8")
    assert cli.main(["plan", str(photos), *options, "--dtype", "mixed_bfloat16"]) == 0
    out = capsys.readouterr().out
    rule = HyperRule((40, 36), 54, 32, micro_batch_size=8)
    plain, lean = (
        training_memory(BiTBackbone(50, 1, dtype="mixed_bfloat16", remat=remat), 3, rule)
        for remat in (False, True)
    )
    assert str(plain) in out and "in mixed_bfloat16" in out and "times 8 in a pass" in out
    assert f"With --remat: {cli._readable(lean.total)} in all" in out
    cli.main(["plan", str(photos), *options, "--dtype", "mixed_bfloat16", "--remat"])
    out = capsys.readouterr().out
    assert str(lean) in out and "With --remat" not in out


def test_plan_in_a_narrow_window_loses_nothing(photos, capsys, monkeypatch):
    monkeypatch.setattr("keras_bit.device.available_memory", lambda: 16e9)  # else it changes
    cli.main(["plan", str(photos)])
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    cli.main(["plan", str(photos)])
    narrow = capsys.readouterr().out
    assert max(map(len, lines_without_paths(narrow, photos))) <= 40
    wide_words, narrow_words = (set(re.findall(r"[\w./-]+", text)) for text in (wide, narrow))
    assert {"learning", "rate", "divided", "optimizer", "SGD"} <= narrow_words
    assert not {word for word in wide_words - narrow_words if word.isdigit()}


def test_plan_lists_no_more_classes_than_a_page_holds(tmp_path, capsys):
    for index in range(33):
        (tmp_path / f"class{index:02}").mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / f"class{index:02}" / f"{number}.png")
    assert cli.main(["plan", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "class29" in out and "class30" not in out and "and 3 more" in out


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
            "`--from-scratch` must be left out beside `--preset`",
        ),
        (["fine-tune", "PHOTOS", "--preset", "m-r50x1", "--width", "2"], "beside `preset`"),
        (["pretrain", "--families", "scenes,clouds"], "`families` must be different names"),
        (["pretrain", "--batch-size", "7"], "`batch_size` must be a multiple"),
    ],
)
def test_errors_are_one_line_and_code_2(photos, capsys, arguments, message):
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("keras-bit: error: ") and message in error
    assert "Traceback" not in captured.err


def test_debug_shows_where_an_error_arose():
    with pytest.raises(FileNotFoundError):
        cli.main(["plan", "no folder", "--debug"])


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
        cli.main(arguments)
    assert "usage: keras-bit" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_is_accepted(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 40
    example = " ".join(out.split("Example: ")[1].split())
    assert example.startswith(f"keras-bit {command}")
    assert cli._parser().parse_args(example.split()[1:]).run


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"keras-bit {__version__}\n"


def test_presets_are_listed(capsys):
    assert cli.main(["presets"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()]
    expected = [name for name in presets() if not name.startswith("vtab/")]
    assert [name for name in listed if name in presets()] == expected
    assert cli.main(["presets", "R152X2"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()]
    assert [name for name in listed if name in presets()] == [n for n in presets() if "r152x2" in n]
    assert cli.main(["presets", "r77"]) == 2
    assert "`TEXT` must be" in capsys.readouterr().err


def test_presets_in_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["presets", "distill"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("distill/r50x1_224: 23.5M parameters") and "…" not in "".join(lines)


def test_download_fills_the_cache(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_BIT_MIRROR", str(tmp_path))
    (tmp_path / "BiT-M-R50x1.npz").write_bytes(b"weights")
    assert cli.main(["download", "m-r50x1", "BiT-M-R50x1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and pathlib.Path(first).read_bytes() == b"weights"
    assert tmp_path / "home" in pathlib.Path(first).parents
    assert cli.main(["download", "m-r50x1", "m-r50x7"]) == 2
    assert "Did you mean 'm-r50x" in capsys.readouterr().err
    assert cli.main(["download", EMBEDDED]) == 0
    assert capsys.readouterr().out == f"{presets()[EMBEDDED].path}\n"
    assert cli.main(["download", "s-r50x1"]) == 2
    assert "BiT-S-R50x1.npz" in capsys.readouterr().err


def raising(error):
    def run(arguments):
        raise error

    return run


def test_a_device_out_of_memory_gets_advice(monkeypatch, capsys):
    import tensorflow as tf

    tensorflow_error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    for error in (tensorflow_error, RuntimeError("RESOURCE_EXHAUSTED: Out of memory")):
        monkeypatch.setattr(cli, "_presets", raising(error))
        assert cli.main(["presets"]) == 2
        assert "--micro-batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_a_bug_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr(cli, "_presets", raising(error("a bug")))
    with pytest.raises(error):
        cli.main(["presets"])


@pytest.mark.parametrize("found_by_the_run", [False, True])
def test_the_bar_of_a_terminal_counts_updates_and_fits_a_narrow_window(found_by_the_run):
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=40, color_system=None)
    rule = HyperRule(32, 100, 30, micro_batch_size=3, schedule_length=7)
    logs = {"updates": 7, "loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.25}
    shown_rule = rule.replace(micro_batch_size=None) if found_by_the_run else rule
    with cli._training_progress(console, shown_rule) as callback:
        if found_by_the_run:  # the rule shown knows of no micro-batches then
            callback.set_model(types.SimpleNamespace(optimizer=rule.optimizer()))
        callback.on_train_begin(logs={})
        for batch in range(70):
            callback.on_train_batch_end(batch, logs={})
        callback.on_epoch_end(0, logs)
        callback.on_train_end(logs={})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", file.getvalue())
    assert "7/7" in shown
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", shown)) <= 40
    assert "update 7: loss 1.0000" in shown


def test_fine_tune_passes_the_network_on(photos, monkeypatch, tmp_path):
    seen = {}

    def run(console, arguments, data, rule, **settings):
        seen.update(settings)

    def network(*options):
        output = ("--output", str(tmp_path / "output"))
        assert cli.main(["fine-tune", str(photos), *output, *options]) == 0
        names = "preset", "depth", "width", "freeze_backbone"
        return tuple(seen[name] for name in names)

    def memory(*options):
        network(*options)
        return tuple(seen[name] for name in ("remat", "dtype", "micro_batch_size"))

    monkeypatch.setattr(cli, "_run", run)
    assert network() == (None, None, None, False)
    assert network("--from-scratch") == (None, (1, 1, 1, 1), 0.5, False)
    assert network("--from-scratch", "--width", "2") == (None, None, 2, False)
    assert network("--preset", "s-r50x1", "--freeze-backbone") == ("s-r50x1", None, None, True)
    assert memory() == (False, None, None)
    assert memory("--remat", "--dtype", "float32", "--micro-batch-size", "auto") == (
        True,
        "float32",
        "auto",
    )


def test_pretrain_writes_weights_where_it_says(monkeypatch, tmp_path, capsys):
    options = ("--families", "textures", "--classes", "2", "--image-size", "32")
    options += ("--batch-size", "4", "--steps", "2", "--width", "0.0625", "--learning-rate", "0.01")
    folder = tmp_path / "formulas"
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["pretrain", *options, "--output", str(folder)]) == 0
    *progress, last = capsys.readouterr().out.splitlines()
    assert last == f"Weights: {folder / 'backbone.npz'}" and (folder / "backbone.npz").is_file()
    assert [line.split(":")[0] for line in progress] == ["step 1 of 2", "step 2 of 2"]
    assert json.loads((folder / "settings.json").read_text())["learning_rate"] == 0.01
    assert cli.main(["pretrain", *options, "--seed", "1", "--output", str(folder)]) == 2
    assert "`output` must be a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, weights, network",
    [
        ([], "weights from images drawn by formula", {"depth": None, "width": None}),
        (["--from-scratch"], "random weights", {"depth": (1, 1, 1, 1), "width": 0.5}),
    ],
)
def test_the_demo_is_a_shortened_rule_on_digits(
    monkeypatch, capsys, tmp_path, options, weights, network
):
    seen = {}

    def fine_tune(data, **settings):
        seen.update(settings, data=data)
        metrics = {"accuracy": 0.5, "validation_images": 359, "best_update": 1}
        metrics["training_seconds"] = 1.0
        return types.SimpleNamespace(metrics=metrics, output=tmp_path)

    monkeypatch.setattr(finetune, "fine_tune", fine_tune)
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--seed", "3", *options]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert str(seen["rule"]) in out and f"a small BiT with {weights}" in out
    assert {name: seen[name] for name in network} == network
    assert seen["rule"].schedule_length < 500 and seen["seed"] == 3
    assert seen["data"].train_size + seen["data"].test_size == 1797
    assert f"Report: {tmp_path / 'report.html'}" in out and "Accuracy 50.00%" in out
