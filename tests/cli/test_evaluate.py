import csv
import json
import pathlib
import shutil

import pytest
from PIL import Image

from keras_bit.cli.main import main
from keras_bit.evaluation import RunOutputs
from keras_bit.evaluation.saved_run import SavedRun
from tests.cli.conftest import in_terminal
from tests.saved_files import RUN

pytestmark = pytest.mark.tensorflow

COLORS = {"blue": (20, 20, 220), "green": (20, 220, 20), "red": (220, 20, 20)}


@pytest.fixture
def run(tmp_path):
    return pathlib.Path(shutil.copytree(RUN, tmp_path / "a run"))


@pytest.fixture
def quick(monkeypatch):
    """A run whose logits are the mean colors of an image: nothing is loaded or compiled."""
    monkeypatch.setattr(SavedRun, "load", lambda self: None)
    monkeypatch.setattr(SavedRun, "logits", lambda self, images: images.mean((1, 2)) / 50)


def fill(folder, counts, mistaken=()):
    """Makes class folders with images of their color, the first of some of another one."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            color = COLORS["red" if name in mistaken and index == 0 else name]
            Image.new("RGB", (36, 34), color).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def colors(tmp_path):
    return fill(tmp_path / "colors", {"blue": 4, "green": 4, "red": 4}, mistaken=("blue", "green"))


def lines_of(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_all_images_of_a_folder_are_evaluated(quick, run, colors, capsys):
    lines = lines_of(capsys, run, colors)
    assert lines[0] == f"{run} on 12 images"
    assert "  accuracy             0.8333  95% interval: 0.5520 to 0.9530" in lines
    assert lines[-4] == "Classes"
    assert lines[-3].split() == ("red F1 0.800 precision 0.667, recall 1.000, 4 images".split())


def test_of_a_folder_with_test_images_these_are_evaluated(quick, run, tmp_path, capsys):
    for side, count in {"Train": 5, "val": 2}.items():
        fill(tmp_path / "both" / side, dict.fromkeys(COLORS, count))
    assert lines_of(capsys, run, tmp_path / "both")[0] == f"{run} on 6 test images"
    assert lines_of(capsys, run, tmp_path / "both", "--split", "all")[0] == f"{run} on 21 images"
    lines = lines_of(capsys, run, tmp_path / "both", "--split", "train")
    assert lines[0] == f"{run} on 15 train images"


@pytest.mark.filterwarnings("always:The run was trained")
def test_of_the_folder_of_training_the_held_out_images_are_evaluated(quick, run, colors, capsys):
    from keras_bit import image_folder

    fingerprint = image_folder(colors).train.fingerprint
    (run / "plan.json").write_text(json.dumps({"data": {"train_fingerprint": fingerprint}}))
    assert lines_of(capsys, run, colors)[0] == f"{run} on 3 test images"
    assert main(["evaluate", str(run), str(colors), "--seed", "1"]) == 2  # not the run's split
    (error,) = capsys.readouterr().err.splitlines()
    assert "`--seed` must be omitted where all images are evaluated" in error
    lines = lines_of(capsys, run, colors, "--seed", "1", "--split", "all")
    assert lines[0] == f"{run} on 12 images"
    assert main(["evaluate", str(run), str(colors), "--split", "train"]) == 0
    assert "warning: The run was trained on these images" in capsys.readouterr().err


def test_of_a_table_all_or_the_test_images_are_evaluated(quick, run, colors, capsys):
    rows = [
        (f"{name}/{i}.png", name, "test" if i < 2 else "train") for name in COLORS for i in range(4)
    ]
    table = colors / "labels.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "side"), *rows])
    assert lines_of(capsys, run, "--csv", table)[0] == f"{run} on 12 images"
    lines = lines_of(capsys, run, "--csv", table, "--split-column", "side")
    assert lines[0] == f"{run} on 6 test images"


def test_a_temperature_is_fitted_and_stored(quick, run, colors, capsys):
    lines = lines_of(capsys, run, colors, "--temperature", "fit", "--quiet")
    temperature = RunOutputs.read(run, 3).temperature
    assert lines[0].startswith(f"Temperature {temperature:.4g}, stored in {run}. Before: loss ")
    assert any(line.endswith(f"with the temperature {temperature:.4g}") for line in lines)
    assert lines[-1].startswith("The temperature was fitted on these images")
    lines = lines_of(capsys, run, colors, "--temperature", "none")
    assert not any("emperature" in line for line in lines[1:])


def test_the_files_are_written_and_not_replaced(quick, run, colors, tmp_path, capsys):
    output = tmp_path / "out"
    lines = lines_of(capsys, run, colors, "--output", output)
    assert lines[-1] == f"Report: {output / 'evaluation.html'}"
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(10 / 12)
    assert main(["evaluate", str(run), str(colors), "--output", str(output)]) == 2
    assert "`--output` must hold no evaluation" in capsys.readouterr().err
    assert lines_of(capsys, run, colors, "--output", output, "--overwrite")


def test_errors_are_told_before_the_images_are_read(run, colors, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_bit.data.image_folder", lambda *a, **k: pytest.fail("read"))
    for arguments, message in (
        (
            (tmp_path / "none", colors),
            "`RUN` must be the output folder of a run, or the model.keras",
        ),
        ((run,), "`FOLDER` must be given, or a table of images as `--csv FILE`"),
        ((run, colors, "--output", run), "`--output` must not be the folder of a run"),
        ((run, colors, "--output", RUN / "rule.json"), "`--output` must be a folder"),
        ((run, colors, "--temperature", "warm"), "--temperature"),
        ((run, colors, "--split", "validation"), "--split"),
        ((run, colors, "--overwrite"), "`--overwrite` must be omitted without `--output`"),
        ((run, colors, "--batch-size", "0"), "`--batch-size` must be at least 1"),
        ((run, colors, "--image-size", "8"), "`--image-size` must be an integer of at least 32"),
    ):
        assert failed(arguments) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error, error


def failed(arguments):
    try:
        return main(["evaluate", *map(str, arguments)])
    except SystemExit as end:  # of the parser
        return end.code


def test_classes_that_the_run_does_not_know_are_named(quick, run, colors, capsys):
    (colors / "red").rename(colors / "pink")
    assert main(["evaluate", str(run), str(colors)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "`data` must have classes of the model only" in error and "'pink'" in error


@pytest.mark.slow
def test_in_a_narrow_terminal_nothing_is_wider(run, tmp_path):
    photos = fill(tmp_path / "photos", {"blue": 40, "green": 9, "red": 9}, mistaken=("blue",))
    output = tmp_path / "out put"
    code, lines = in_terminal(("evaluate", run, photos, "--output", output), 50)
    assert code == 0
    paths = [line for line in lines if str(tmp_path) in line]
    assert any(line.strip() == f"Report: {output / 'evaluation.html'}" for line in paths)
    others = [line for line in lines if line not in paths]
    assert max(map(len, others)) <= 50
    assert any(line.startswith("accuracy: ") for line in others)
    assert any("has 4.44" in line or "4.44 times" in line for line in others)
